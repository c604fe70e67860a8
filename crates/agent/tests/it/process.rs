//! The program itself.

use crate::Site;
use disk::{RealDisk, SharedDisk};
use keys::ca::Profile;
use keys::{NotAfter, UnixTime, csr, identity};
use std::fs::File;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_agent_whose_log_cannot_be_written_goes_on_and_ends_with_its_standard_input() {
    let (site, dir) = (Site::new(), tempfile::tempdir().unwrap());
    let disk: SharedDisk = Arc::new(RealDisk);
    let request = identity::prepare(&disk, dir.path(), "PUMP-7").unwrap();
    let key = csr::read(&request).unwrap().spki_der;
    let profile = Profile::IDevId { serial: "PUMP-7".into() };
    let idevid = site.authority.issue(&key, &profile, UnixTime::now(), NotAfter::Never).unwrap();
    identity::provision(&disk, dir.path(), &idevid, &[site.anchor()]).unwrap();
    // An EST server that hangs up. The agent tells its log so each time, and tries again.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, tried) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            drop(socket);
            if tell.send(()).is_err() {
                return;
            }
        }
    });
    let mut agent = Command::new(env!("CARGO_BIN_EXE_plimsoll-agent"))
        .arg("run")
        .arg("--data")
        .arg(dir.path())
        .args(["--est", &format!("https://{address}"), "--gateway", "gw-1@127.0.0.1:1"])
        .arg("--end-with-stdin")
        .stdin(Stdio::piped())
        // Each write to it finds no space.
        .stderr(File::options().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        tried.recv_timeout(PATIENCE).expect("it tries again");
    }
    drop(agent.stdin.take());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = agent.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            agent.kill().unwrap();
        }
        // Not to wait for a time, but to leave the processor to what is waited for.
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{status}");
}
