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
//! A process that leaves its group (`setsid`), or whose agent was killed by SIGKILL, is not reached by that. So before a slot's program
//! starts, its attendant ends whatever is left of earlier ones ([`end_others`]): two of them never run at once. Who runs another
//! file than the slots' and has thrown away the environment that it was given stays out of reach, as for any supervisor without a
//! control group.

use crate::supervisor::Exit;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal,
};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Our own executable, whatever became of its file since we were started.
pub const ATTENDANT: &str = "/proc/self/exe";

/// The attendant's exit code when it could not become the program, as a shell's.
pub const NOT_EXECUTED: i32 = 126;

/// In the environment of whatever is started out of a slot: where its slots lie, by which what is left of it is found.
pub const SLOTS: &str = "PLIMSOLL_SLOTS";

/// How often and how long an attendant waits for those whom it has killed: two seconds.
const OTHERS_MAX: u32 = 200;
const OTHERS_WAIT: Duration = Duration::from_millis(10);
/// How much of another process's environment is looked through. Linux gives arguments and environment a quarter of the stack.
const ENVIRONMENT_BYTES_MAX: u64 = 2 * 1024 * 1024;

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
    /// Where the product's slots lie, absolute, if it runs out of one: then nobody else of them runs beside it.
    pub slots: Option<PathBuf>,
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
        command.arg("attend").arg(std::process::id().to_string());
        match &program.slots {
            Some(slots) => command.arg("--alone-in").arg(slots).env(SLOTS, slots),
            None => command.env_remove(SLOTS),
        };
        command.arg("--").arg(&program.file);
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
pub fn attend(
    parent: u32,
    alone_in: Option<&Path>,
    program: &Path,
    args: &[OsString],
) -> io::Error {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // Who died before was not heard: its child has another parent by now.
    let found = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if found.and_then(|pid| u32::try_from(pid).ok()) != Some(parent) {
        return io::Error::other("the process that started it is gone");
    }
    match alone_in.map_or(Ok(0), |slots| end_others(slots, parent)) {
        Ok(0) => {}
        Ok(n) => {
            // It goes where the program's words go.
            let _ = writeln!(io::stderr(), "{n} processes of an earlier start were ended");
        }
        Err(error) => return error,
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

/// Kills every process, besides us and the one that started us, that runs a file of these slots, or was started with
/// [`SLOTS`] saying that it belongs to them, and returns how many there were once none is left. An error: some do not end, or breed
/// faster than they are ended.
fn end_others(slots: &Path, parent: u32) -> io::Result<usize> {
    let file = std::fs::canonicalize(slots)?;
    let mark = [SLOTS.as_bytes(), b"=", slots.as_os_str().as_bytes()].concat();
    let spared = [std::process::id(), parent];
    let mut ended = BTreeSet::new();
    for _ in 0..OTHERS_MAX {
        let others: Vec<u32> =
            processes()?.filter(|pid| !spared.contains(pid) && is_of(*pid, &file, &mark)).collect();
        if others.is_empty() {
            return Ok(ended.len());
        }
        for pid in others {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            // What was seen may have ended, and its number be another's: from here on it is one process.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if is_of(pid, &file, &mark) {
                let _ = pidfd_send_signal(process, Signal::KILL);
                ended.insert(pid);
            }
        }
        std::thread::sleep(OTHERS_WAIT);
    }
    let what = format!("processes of an earlier start out of `{}` do not end", slots.display());
    Err(io::Error::other(what))
}

fn processes() -> io::Result<impl Iterator<Item = u32>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether a process runs a file of the slots, replaced since or not, or is marked as theirs. One that has ended is nobody's.
fn is_of(pid: u32, slots: &Path, mark: &[u8]) -> bool {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    if std::fs::read_link(of("exe")).is_ok_and(|file| file.parent() == Some(slots)) {
        return true;
    }
    let mut environment = Vec::new();
    let read = std::fs::File::open(of("environ"))
        .and_then(|file| file.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut environment));
    read.is_ok() && environment.split(|byte| *byte == 0).any(|entry| entry == mark)
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
