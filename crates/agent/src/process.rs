//! A process that we started, and that does not outlive us.
//!
//! Promises: it leads a process group of its own, and when it ends what is left of the group is killed; it is killed by the kernel
//! when the thread that started it dies (Linux, `prctl(2)` PR_SET_PDEATHSIG), and its standard input ends then, too. Its number is
//! not given to another process while we may still send it a signal: it is waited for without being reaped first.
//! Never: waits for it to end by blocking its caller.
//!
//! The signal at the parent's death has to be asked for by the process itself, between `fork` and `exec`, and code that runs there
//! is unsafe to write. So we start our own executable as an **attendant** (`plimsoll-agent attend`), which asks for it and then
//! becomes the program ([`attend`]): same process, same number, the program's own file in `/proc/PID/exe`.
//!
//! A process that leaves its group (`setsid`) is out of reach, here as for any supervisor without a control group.

use crate::supervisor::Exit;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Our own executable, whatever became of its file since we were started.
pub const ATTENDANT: &str = "/proc/self/exe";

/// The attendant's exit code when it could not become the program, as a shell's.
pub const NOT_EXECUTED: i32 = 126;

/// How often and how long an attendant waits for a file that somebody still has open for writing: a process that was forked in
/// that moment, and has not executed its own program yet.
const BUSY_MAX: u32 = 100;
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// What is to be started.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub file: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, String)>,
    /// Whether what it prints comes back, or goes where ours goes.
    pub piped: bool,
}

#[derive(Debug)]
pub struct Process {
    pid: Pid,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts it. `gone` is called, on a thread of its own, when it has ended; then [`Process::reap`] it. The thread that calls this
    /// must live as long as the process may.
    pub fn start(
        attendant: &Path,
        program: &Program,
        gone: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let output = || if program.piped { Stdio::piped() } else { Stdio::inherit() };
        let mut command = Command::new(attendant);
        command.arg("attend").arg(std::process::id().to_string()).arg("--").arg(&program.file);
        command.args(&program.args).envs(program.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(output()).stderr(output()).process_group(0);
        let mut child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let stdin = child.stdin.take();
        let mut process = Self { pid, child, stdin };
        let waiting = std::thread::Builder::new().name("wait".into()).spawn(move || {
            wait(pid);
            gone();
        });
        if let Err(error) = waiting {
            process.kill();
            process.reap();
            return Err(error);
        }
        Ok(process)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it prints, if that comes back. Once.
    pub fn output(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Asks it to end: SIGTERM to its group, and the end of its standard input.
    pub fn terminate(&mut self) {
        self.stdin = None;
        self.signal_group(Signal::TERM);
    }

    pub fn kill(&self) {
        self.signal_group(Signal::KILL);
    }

    /// To the process alone.
    pub fn signal(&self, signal: Signal) {
        // It may have ended; then there is nobody to be told.
        let _ = rustix::process::kill_process(self.pid, signal);
    }

    fn signal_group(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Takes the rest of its group along, and says how it ended. Blocks until it has.
    pub fn reap(&mut self) -> Exit {
        self.stdin = None;
        // Until it is reaped, its number and its group's are nobody else's. A leader that runs still is waited for, not killed.
        wait(self.pid);
        self.kill();
        match self.child.wait() {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or_default()),
            },
            // Somebody else has waited for it: how it ended, nobody will say.
            Err(_) => Exit::Code(-1),
        }
    }
}

/// Returns when a child of ours has ended. It keeps its number.
fn wait(pid: Pid) {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(rustix::process::waitid(WaitId::Pid(pid), ended), Err(rustix::io::Errno::INTR)) {
    }
}

/// The attendant: becomes the program, and dies with its parent from then on. Returns only what went wrong.
pub fn attend(parent: u32, program: &Path, args: &[OsString]) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // Who died before was not heard: its child has another parent by now.
    let found = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if found.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return io::Error::other("the process that started it is gone");
    }
    for _ in 0..BUSY_MAX {
        let error = Command::new(program).args(args).exec();
        if error.kind() != io::ErrorKind::ExecutableFileBusy {
            return error;
        }
        std::thread::sleep(BUSY_WAIT);
    }
    io::ErrorKind::ExecutableFileBusy.into()
}

/// Gives the owner the right to execute a file, if he has not got it: what we write is 0600.
pub fn make_executable(file: &Path) -> io::Result<()> {
    let mut mode = std::fs::metadata(file)?.permissions();
    if mode.mode() & 0o100 == 0 {
        mode.set_mode(mode.mode() | 0o100);
        std::fs::set_permissions(file, mode)?;
    }
    Ok(())
}

/// Calls `line` with each line of `from`, without its end, until that ends or `line` says no. What is longer than `max` bytes is
/// given as None, once, and never held in memory.
pub fn each_line(
    from: impl Read,
    max: usize,
    mut line: impl FnMut(Option<&str>) -> bool,
) -> io::Result<()> {
    use std::io::BufRead as _;
    let mut from = io::BufReader::new(from);
    let mut held = Vec::new();
    let mut too_long = false;
    loop {
        let bytes = match from.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        let is_end = bytes.is_empty();
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if held.len() + part.len() > max {
            too_long = true;
            held.clear();
        } else if !too_long {
            held.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() || (is_end && (too_long || !held.is_empty())) {
            let text = String::from_utf8_lossy(&held);
            let goes_on = line((!too_long).then(|| text.trim_end_matches('\r')));
            held.clear();
            too_long = false;
            if !goes_on {
                return Ok(());
            }
        }
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Option<String>> {
        let mut lines = Vec::new();
        // In pieces of one byte, as a pipe may bring them.
        let from = io::BufReader::with_capacity(1, text);
        each_line(from, 5, |line| {
            lines.push(line.map(str::to_owned));
            true
        })
        .unwrap();
        lines
    }

    #[test]
    fn lines_come_whole_and_one_that_is_too_long_is_named_once_and_left_out() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n"), [some("")]);
        assert_eq!(lines(b"ab\r\n12345\nrest"), [some("ab"), some("12345"), some("rest")]);
        assert_eq!(lines(b"123456\n12345678901234\nok\n"), [None, None, some("ok")]);
        assert_eq!(lines(b"ok\n1234567"), [some("ok"), None]);
        assert_eq!(lines(b"a\xFFb\n"), [some("a\u{FFFD}b")]);
    }

    #[test]
    fn who_wants_no_more_lines_is_given_none() {
        let mut seen = 0;
        let stopped = each_line(&b"a\nb\nc\n"[..], 5, |_| {
            seen += 1;
            seen < 2
        });
        assert_eq!((stopped.is_ok(), seen), (true, 2));
    }
}
