//! What this gateway tells of messages and updates on their way, as spans. It decides nothing for them.
//!
//! Told are the messages and manifests that were believed, once each: an honest repeat says nothing new. A device sends no spans:
//! what happened on it is told here, by the times in its own signed header.

use crate::admission::Claim;
use model::envelope::MESSAGE_BYTES_MAX;
use model::manifest::{InstallEnd, Outcome};
use model::{DeviceId, Digest, GatewayId, Header, Kind, RolloutId, Timestamp};
use traces::{Step, Trace, Traces, Value};
use trust::cose;

/// Where devices publish.
const TOPIC: &str = "plimsoll/1/{device}/up";

/// A message of readings that is traced, from its arrival to its PUBACK.
pub struct Arrived {
    trace: Trace,
    header: Header,
    bytes: usize,
    fresh: bool,
    at: Timestamp,
}

impl Arrived {
    /// `None`: it is not traced.
    pub fn of(
        traces: &Traces,
        device: &DeviceId,
        claim: &Claim,
        message: &[u8],
        at: Timestamp,
    ) -> Option<Self> {
        let trace = traces.message(device, &claim.key, claim.counter)?;
        let header = header(message)?;
        Some(Self { trace, header, bytes: message.len(), fresh: claim.fresh, at })
    }

    /// It is durable, and its PUBACK leaves.
    pub fn tell(self, traces: &Traces, device: &DeviceId, gateway: &GatewayId, now: Timestamp) {
        let Self { trace, header, bytes, fresh, at } = self;
        let mut of_device: Vec<(&str, Value)> = vec![
            ("plimsoll.epoch", header.counter.epoch.into()),
            ("plimsoll.sequence", header.counter.sequence.into()),
            ("plimsoll.device.uptime_ms", header.uptime_ms.into()),
        ];
        // A device's clock labels: where it is ahead of ours, or not known, the span has no length.
        let sealed_at = header.wall.map_or(at, |wall| wall.time);
        if let Some(wall) = header.wall {
            of_device.push(("plimsoll.clock.uncertainty_ms", wall.uncertainty_ms.into()));
        }
        if sealed_at > at {
            let ahead_us = sealed_at.as_us().saturating_sub(at.as_us());
            of_device.push(("plimsoll.clock.ahead_ms", (ahead_us / 1000).into()));
        }
        traces.tell(trace, &Step::Seal, device, (sealed_at.min(at), at), of_device);
        let more: [(&str, Value); 6] = [
            ("messaging.system", "mqtt".into()),
            ("messaging.operation.type", "receive".into()),
            ("messaging.destination.template", TOPIC.into()),
            ("messaging.client.id", device.as_str().into()),
            ("messaging.message.body.size", bytes.into()),
            ("plimsoll.fresh", fresh.into()),
        ];
        traces.tell(trace, &Step::Admit { gateway }, device, (at, now), more);
    }
}

/// The header of a message that was believed, if it has readings.
pub fn header(message: &[u8]) -> Option<Header> {
    let opened = cose::open(message, MESSAGE_BYTES_MAX).ok()?;
    let header = opened.header();
    (header.kind == Kind::Readings).then(|| header.clone())
}

/// What is remembered of one device's update, so that each thing is told once.
#[derive(Default)]
pub struct Update {
    image: Option<Image>,
    /// What the device said last of an install. `None`: it has not said anything since this gateway started.
    said: Option<Option<(RolloutId, InstallEnd)>>,
}

struct Image {
    digest: Digest,
    bytes: u64,
    from: Timestamp,
    /// Its last byte was given.
    to: Option<Timestamp>,
}

/// What is to be told of a check-in.
#[derive(Default)]
pub struct News {
    image: Option<Image>,
    end: Option<InstallEnd>,
}

impl Update {
    /// A device is given an image from now on.
    pub fn image_begins(&mut self, digest: Digest, bytes: u64, now: Timestamp) {
        self.image = Some(Image { digest, bytes, from: now, to: None });
    }

    pub fn image_is_given(&mut self, now: Timestamp) {
        if let Some(image) = &mut self.image {
            image.to.get_or_insert(now);
        }
    }

    /// A device has said how its newest install stands.
    pub fn says(&mut self, outcome: Option<&Outcome>) -> News {
        let rollout = |outcome: &Outcome| Some((outcome.rollout.clone()?, outcome.end));
        let said = outcome.and_then(rollout);
        let before = self.said.replace(said.clone());
        let (Some(outcome), Some((_, end))) = (outcome, &said) else { return News::default() };
        let is_news = match before {
            Some(before) => before != said,
            // An end that is said to a gateway which has just started may be a year old.
            None => *end == InstallEnd::Underway,
        };
        let is_of_it = |image: &mut Image| image.digest == outcome.digest && image.to.is_some();
        News { image: self.image.take_if(is_of_it), end: is_news.then_some(*end) }
    }
}

impl News {
    /// `came`, `now`: the check-in's beginning and end.
    pub fn tell(
        self,
        traces: &Traces,
        (site, gateway): (&str, &GatewayId),
        (device, rollout): (&DeviceId, &RolloutId),
        (came, now): (Timestamp, Timestamp),
    ) {
        let Self { image, end } = self;
        if image.is_none() && end.is_none() {
            return;
        }
        let Some(trace) = traces.update(site, rollout, device) else { return };
        let of = || ("plimsoll.rollout", Value::from(rollout.as_str()));
        if let Some(Image { digest, bytes, from, to }) = image {
            let more = [
                of(),
                ("plimsoll.image.sha256", digest.to_string().into()),
                ("http.response.body.size", bytes.into()),
            ];
            traces.tell(trace, &Step::Image { gateway }, device, (from, to.unwrap_or(came)), more);
        }
        if let Some(end) = end {
            let more = [of(), ("plimsoll.install.end", end.as_str().into())];
            traces.tell(trace, &Step::CheckIn { gateway, end }, device, (came, now), more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ProductId;

    fn said(rollout: &str, end: InstallEnd) -> Outcome {
        Outcome {
            rollout: Some(RolloutId::new(rollout).unwrap()),
            product: ProductId::new("pump-app").unwrap(),
            digest: Digest([1; 32]),
            end,
            reason: String::new(),
        }
    }

    #[test]
    fn what_a_device_says_again_is_told_once() {
        use InstallEnd::{Confirmed, Underway};
        let mut update = Update::default();
        let mut ends = |outcomes: &[Option<Outcome>]| -> Vec<_> {
            outcomes.iter().map(|outcome| update.says(outcome.as_ref()).end).collect()
        };
        let (underway, confirmed) = (said("r-1", Underway), said("r-1", Confirmed));
        let heard = [
            None,
            Some(underway.clone()),
            Some(underway),
            Some(confirmed.clone()),
            Some(confirmed),
        ];
        assert_eq!(ends(&heard), [None, Some(Underway), None, Some(Confirmed), None]);
        assert_eq!(ends(&[Some(said("r-2", Confirmed))]), [Some(Confirmed)], "another rollout");
    }

    #[test]
    fn a_gateway_that_has_just_started_tells_nothing_of_last_year() {
        let first = |outcome| Update::default().says(Some(&outcome)).end;
        assert_eq!(first(said("r-1", InstallEnd::Confirmed)), None);
        assert_eq!(first(said("r-1", InstallEnd::Underway)), Some(InstallEnd::Underway));
    }

    #[test]
    fn an_image_is_told_of_once_it_is_given_and_the_device_has_said_what_for() {
        let mut update = Update::default();
        let outcome = said("r-1", InstallEnd::Underway);
        update.image_begins(outcome.digest, 7, Timestamp(1));
        assert!(update.says(Some(&outcome)).image.is_none(), "it is on its way");
        update.image_is_given(Timestamp(2));
        let other = Outcome { digest: Digest([2; 32]), ..outcome.clone() };
        assert!(update.says(Some(&other)).image.is_none(), "another image");
        let image = update.says(Some(&outcome)).image.unwrap();
        assert_eq!((image.from, image.to), (Timestamp(1), Some(Timestamp(2))));
        assert!(update.says(Some(&outcome)).image.is_none(), "it was told");
    }
}
