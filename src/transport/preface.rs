//! The first bytes of a connection: those of HTTP/2 (RFC 9113 3.4), or it is not for us.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What every client of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose preface was read, and is read again by who gets this.
pub(super) struct Greeted<IO> {
    io: IO,
    /// How much of the preface was read again.
    told: usize,
}

/// Reads the preface; a byte that is not of it ends the connection at once, and none are buffered.
///
/// # Errors
/// When the connection ends, or speaks something else.
pub(super) async fn read<IO: AsyncRead + Unpin>(mut io: IO) -> io::Result<Greeted<IO>> {
    let (mut read, mut bytes) = (0, [0; PREFACE.len()]);
    while read < PREFACE.len() {
        let count = io.read(&mut bytes[read..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read += count;
        if !PREFACE.starts_with(&bytes[..read]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not HTTP/2"));
        }
    }
    Ok(Greeted { io, told: 0 })
}

impl<IO: AsyncRead + Unpin> AsyncRead for Greeted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &PREFACE[self.told..];
        if rest.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, buffer);
        }
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.told += count;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Greeted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn http_2_is_let_through_whole() {
        let sent = [PREFACE, b"frames"].concat();
        let mut greeted = read(sent.as_slice()).await.expect("HTTP/2");
        let mut all = Vec::new();
        greeted.read_to_end(&mut all).await.expect("read");
        assert_eq!(all, sent);
    }

    #[tokio::test]
    async fn anything_else_is_not() {
        for sent in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PRI", b""]
        {
            assert!(read(sent).await.is_err(), "{sent:?}");
        }
    }
}
