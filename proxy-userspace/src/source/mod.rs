//! Where resources come from. They arrive as text; what it means is `proxy_traffic::istio`'s business.

mod files;

pub use files::{Change, Changes, Folder, FolderError, Watch};
