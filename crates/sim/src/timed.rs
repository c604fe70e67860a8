//! A socket of which everything ends by one moment: who drips byte after byte is not waited for either.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Timed {
    socket: TcpStream,
    within: Duration,
    end: Instant,
}

impl Timed {
    pub fn connect(at: SocketAddr, within: Duration) -> io::Result<Self> {
        let end = Instant::now() + within;
        // The kernel takes no timeout of nothing at all.
        let socket = TcpStream::connect_timeout(&at, within.max(Duration::from_millis(1)))?;
        Ok(Self { socket, within, end })
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(left) }
    }

    fn late(&self) -> io::Error {
        let text = format!("no whole answer within {:.1?}", self.within);
        io::Error::new(ErrorKind::TimedOut, text)
    }

    fn told(&self, result: io::Result<usize>) -> io::Result<usize> {
        // The kernel calls a timeout of a socket "would block".
        result.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => self.late(),
            _ => error,
        })
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        let result = self.socket.read(buffer);
        self.told(result)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        let result = self.socket.write(bytes);
        self.told(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_peer_that_is_silent_or_drips_is_not_waited_for() {
        for drips in [false, true] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let at = listener.local_addr().unwrap();
            let peer = std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                // Until the other end is gone.
                while drips && socket.write_all(b".").is_ok() {}
                let _ = socket.read(&mut [0]);
            });
            let mut socket = Timed::connect(at, Duration::from_millis(100)).unwrap();
            let mut byte = [0];
            let error = loop {
                match socket.read(&mut byte) {
                    Ok(n) => assert_eq!(n, 1),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::TimedOut, "drips: {drips}");
            assert_eq!(error.to_string(), "no whole answer within 100.0ms");
            drop(socket);
            peer.join().unwrap();
        }
    }
}
