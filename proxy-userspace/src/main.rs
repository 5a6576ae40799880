//! Arguments in, exit code out.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// tokio aligns what it keeps for each socket and task to 128 bytes, and glibc pays for each such block with up to
/// 128 more: half of the memory of an idle connection. mimalloc's size classes waste none.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    shunt::node::memory::give_back_at_once();
    shunt::cli::main()
}
