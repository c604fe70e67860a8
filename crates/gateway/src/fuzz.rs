//! Foreign bytes through framing and session, without IO: what the fuzzer drives.

use crate::bundle::{Peer, View};
use crate::refusal::Refusal;
use crate::session::{Answer, Effect, Event, Session, Terms};
use api::{Bundle, BundleDevice, Standing};
use model::{DeviceId, Digest, GatewayId, Nonce};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How an input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Packets that passed both readers.
    pub packets: u64,
    /// The last refusal, if there was one.
    pub refused: Option<Refusal>,
}

static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| {
    let bundle = Bundle {
        format: 1,
        site: "site".into(),
        generation: 1,
        gateway: "gw".into(),
        zone: "hall".into(),
        devices: vec![BundleDevice {
            id: "fuzz".into(),
            zone: "hall".into(),
            standing: Standing::Enrolled,
            tls_keys: vec![Digest([7; 32]).to_string()],
            tls_keys_until_ms: Default::default(),
            seal_keys: vec![],
        }],
        policies: policy::DEFAULT_POLICIES.into(),
    };
    let gateway = GatewayId::new("gw").expect("a plain name");
    Arc::new(View::of(&bundle, &gateway).expect("the default policies fit the schema"))
});

/// One session of an enrolled device `fuzz`. The first byte of the input says how its rest is sent: if it is even, in
/// one piece, and each message is accepted at once; if it is odd, in pieces of so many bytes, and nothing is answered.
///
/// # Panics
///
/// If pieces make another outcome than the whole, or anything comes after the end.
pub fn fuzz_entry(bytes: &[u8]) -> End {
    let Some((mode, stream)) = bytes.split_first() else {
        return End { packets: 0, refused: None };
    };
    if mode % 2 == 0 {
        return run(stream, stream.len(), true);
    }
    let end = run(stream, usize::from(*mode), false);
    assert_eq!(end, run(stream, stream.len(), false), "how a stream is cut says nothing");
    end
}

fn run(stream: &[u8], piece: usize, answered: bool) -> End {
    let peer =
        Peer { device: Some(DeviceId::new("fuzz").expect("a plain name")), spki: Digest([7; 32]) };
    let began = Duration::ZERO;
    let mut session = Session::new(Terms::default(), peer, Nonce([9; 16]), VIEW.clone(), began);
    let (mut refused, mut closed) = (None, false);
    for piece in stream.chunks(piece.max(1)) {
        let mut effects = session.on(Event::Bytes(piece), began);
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                assert!(!closed, "nothing comes after Close");
                match effect {
                    Effect::Offer { place, .. } if answered => {
                        let answer = Event::Answered { place, answer: Answer::Accepted };
                        next.extend(session.on(answer, began));
                    }
                    Effect::Offer { .. } | Effect::Open => {}
                    Effect::Refuse(refusal) => refused = Some(refusal),
                    Effect::Close => closed = true,
                    Effect::Send(packet) => assert!(!packet.is_empty()),
                }
            }
            effects = next;
        }
    }
    End { packets: session.packets(), refused }
}
