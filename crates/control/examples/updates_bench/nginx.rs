//! The peer: nginx of Debian, one process, with TLS 1.3 and the client's certificate asked for, that reads the call and
//! answers a constant.

use crate::world::{Certified, SITE, World, day, secret};
use disk::RealDisk;
use keys::NotAfter;
use keys::ca::Profile;
use keys::file;
use model::envelope::Algorithm;
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    /// `None`: there is none here. Its answers have `answer_bytes`.
    pub fn start(world: &World, answer_bytes: usize) -> Option<Self> {
        let dir = world.dir.path().join("nginx");
        fs::create_dir_all(&dir).unwrap();
        let (key, profile) = (secret(Algorithm::Esp256), Profile::Control { site: SITE.into() });
        let until = NotAfter::At(day(30));
        let own = Certified::by(&world.site, key, &profile, until);
        file::save(&RealDisk, &dir.join("tls.key"), &own.key).unwrap();
        fs::write(dir.join("tls.pem"), pem(&own.chain[0])).unwrap();
        fs::write(dir.join("ca.pem"), world.site.certificate_pem()).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (answer, at) = ("x".repeat(answer_bytes), dir.display());
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl; keepalive_requests 100000000;\n\
             ssl_protocols TLSv1.3; ssl_certificate {at}/tls.pem; ssl_certificate_key {at}/tls.key;\n\
             ssl_client_certificate {at}/ca.pem; ssl_verify_client on;\n\
             location / {{ default_type application/json; return 200 '{answer}'; }} }} }}\n"
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .args([
                "-p".as_ref(),
                dir.as_os_str(),
                "-c".as_ref(),
                dir.join("nginx.conf").as_os_str(),
            ])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Self { child, port });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nginx does not serve: see {at}/error.log");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
