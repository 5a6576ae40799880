//! One direction of one connection: bytes from one socket to the other until the end of the stream.
//!
//! It copies through the worker's buffer until a read shows bulk, then splices through a pooled pipe, and goes
//! back after a few small reads. An idle direction holds neither buffer nor pipe: only what the receiver would
//! not take yet is kept, until it does.

use std::{
    io,
    net::Shutdown,
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;

use super::{
    buffer,
    pipe::{CAPACITY, Pipe},
    splice,
};

/// A read of this size shows bulk: splice from here on.
const BULK: usize = 32 * 1024;
/// A read below this size is small.
const SMALL: usize = 4 * 1024;
/// So many small reads in a row end a bulk transfer.
const SMALL_READS: u8 = 8;
/// Bytes moved before other connections have their turn.
const TURN: usize = 1024 * 1024;

/// What a direction waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// More bytes of the sender.
    Sender,
    /// Room at the receiver.
    Receiver,
    /// Nothing: it has ended.
    Ended,
}

/// Which socket broke.
#[derive(Debug)]
pub(super) enum Broken {
    Sender,
    Receiver,
}

/// Bytes that were taken from the sender and not yet given to the receiver. Small, for those that hold nothing.
enum Held {
    Nothing,
    Bytes(Box<Kept>),
    Piped { pipe: Pipe, length: u32 },
}

const _: () = assert!(size_of::<Held>() == 16 && CAPACITY <= u32::MAX as usize);

/// What a receiver did not take of a read.
struct Kept {
    bytes: Box<[u8]>,
    written: usize,
}

/// One direction.
pub(super) struct Direction {
    held: Held,
    pub(super) waits: Waits,
    /// The sender has ended its stream.
    eof: bool,
    /// Splicing, and how many small reads there were in a row; `None`: copying.
    splicing: Option<u8>,
}

impl Direction {
    pub(super) const fn new() -> Self {
        Self { held: Held::Nothing, waits: Waits::Sender, eof: false, splicing: None }
    }

    /// Moves what can be moved now and adds it to `moved`; ready when the end of the stream was passed on.
    /// `last`: the other direction has ended, so closing the receiver will say it without a shutdown(2).
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&TcpStream, &TcpStream),
        last: bool,
        moved: &mut u64,
    ) -> Poll<Result<(), Broken>> {
        let mut turn = 0;
        while self.waits != Waits::Ended {
            self.waits = Waits::Receiver;
            ready!(self.poll_flush(cx, to)).map_err(|_| Broken::Receiver)?;
            if self.eof {
                self.waits = Waits::Ended;
                return Poll::Ready(if last { Ok(()) } else { shutdown(to) });
            }
            self.waits = Waits::Sender;
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(from.poll_read_ready(cx)).map_err(|_| Broken::Sender)?;
            let took = if self.splicing.is_some() { self.splice(from) } else { self.copy(from, to)? };
            match took {
                Ok(0) => self.eof = true,
                Ok(took) => {
                    *moved += took as u64;
                    turn += took;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(Err(Broken::Sender)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the receiver what is held, and the pipe back once it is empty.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            let wrote = match &mut self.held {
                Held::Nothing => return Poll::Ready(Ok(())),
                Held::Bytes(kept) => splice::write(to, &kept.bytes[kept.written..]),
                Held::Piped { pipe, length } => splice::drain(pipe, to, *length as usize),
            };
            match wrote {
                Ok(count) => self.wrote(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(to.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Forgets `count` held bytes.
    fn wrote(&mut self, count: usize) {
        let left = match &mut self.held {
            Held::Nothing => 0,
            Held::Bytes(kept) => {
                kept.written += count;
                kept.bytes.len() - kept.written
            }
            Held::Piped { length, .. } => {
                // A pipe never gives more than it holds.
                *length -= count as u32;
                *length as usize
            }
        };
        if left == 0
            && let Held::Piped { pipe, .. } = std::mem::replace(&mut self.held, Held::Nothing)
        {
            pipe.give_back();
        }
    }

    /// Reads into the worker's buffer and writes at once; keeps the rest. The outer error is the receiver's.
    fn copy(&mut self, from: &TcpStream, to: &TcpStream) -> Result<io::Result<usize>, Broken> {
        buffer::with(|buffer| {
            let read = match splice::read(from, buffer) {
                Ok(read) if read > 0 => read,
                other => return Ok(other),
            };
            let written = match splice::write(to, &buffer[..read]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(_) => return Err(Broken::Receiver),
            };
            if written < read {
                self.held = Held::Bytes(Box::new(Kept { bytes: buffer[written..read].into(), written: 0 }));
            }
            self.splicing = (read >= BULK).then_some(0);
            Ok(Ok(read))
        })
    }

    /// Fills an empty pipe.
    fn splice(&mut self, from: &TcpStream) -> io::Result<usize> {
        let Ok(pipe) = Pipe::take() else {
            // Out of descriptors: copying needs none.
            self.splicing = None;
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let filled = splice::fill(from, &pipe);
        match filled {
            Ok(length) if length > 0 => {
                let small = self.splicing.filter(|_| length < SMALL).map_or(0, |small| small + 1);
                self.splicing = (small < SMALL_READS).then_some(small);
                self.held = Held::Piped { pipe, length: length as u32 };
            }
            _ => pipe.give_back(),
        }
        filled
    }
}

/// Passes the end of the stream on. A receiver that is gone already will say so by itself.
fn shutdown(to: &TcpStream) -> Result<(), Broken> {
    match socket2::SockRef::from(to).shutdown(Shutdown::Write) {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(Broken::Receiver),
        _ => Ok(()),
    }
}
