//! Single system calls on a socket, with tokio's readiness kept right. What a loop of them makes is in
//! `direction.rs`.

use std::{io, os::fd::AsFd};

use nix::{
    errno::Errno,
    fcntl::{SpliceFFlags, splice},
};
use tokio::{io::Interest, net::TcpStream};

use super::pipe::{CAPACITY, Pipe};

/// Reads once. A read that did not fill the buffer has emptied the socket, so readiness is cleared without
/// asking again: whatever comes later is a new event. 0 is the end of the stream.
pub(super) fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let full = from.try_io(Interest::READABLE, || {
        let read = again(|| nix::unistd::read(from, buffer))?;
        if read == 0 || read == buffer.len() {
            return Ok(read);
        }
        short = Some(read);
        Err(io::ErrorKind::WouldBlock.into())
    });
    short.map_or(full, Ok)
}

/// Writes once.
pub(super) fn write(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    to.try_io(Interest::WRITABLE, || Ok(again(|| nix::unistd::write(to, bytes))?))
}

/// Moves bytes from the socket into an **empty** pipe. Only because the pipe is empty does "would block" mean
/// that the socket is: a pipe can be out of slots long before it is out of bytes.
pub(super) fn fill(from: &TcpStream, pipe: &Pipe) -> io::Result<usize> {
    from.try_io(Interest::READABLE, || once(from, &pipe.writer, CAPACITY))
}

/// Moves up to `length` bytes from the pipe to the socket.
pub(super) fn drain(pipe: &Pipe, to: &TcpStream, length: usize) -> io::Result<usize> {
    to.try_io(Interest::WRITABLE, || once(&pipe.reader, to, length))
}

fn once(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(again(|| splice(&from, None, &to, None, length, flags))?)
}

/// Repeats a call that a signal interrupted.
fn again(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
