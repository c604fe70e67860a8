//! Token buckets: how fast a device, or everyone together, may go on. Pure.
//!
//! A bucket may go into debt: what has been read has been read. Who is in debt is not read from until it is paid off,
//! so that TCP holds the sender back, nothing is dropped, and nothing piles up here (INV-COST-1).

use std::time::Duration;

/// So many per second, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u64,
    pub burst: u64,
}

/// One bucket. It keeps the instant at which it will be full again; all else follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    rate: Rate,
    full_at: Duration,
}

impl Bucket {
    /// A full bucket. A rate of 0 per second is taken as 1.
    pub fn new(rate: Rate) -> Self {
        let rate = Rate { per_second: rate.per_second.max(1), burst: rate.burst.max(1) };
        Self { rate, full_at: Duration::ZERO }
    }

    /// Takes `n` out, into debt if need be.
    pub fn charge(&mut self, n: u64, now: Duration) {
        self.full_at = self.full_at.max(now).saturating_add(self.time_for(n));
    }

    /// How long until the debt is paid; zero if there is none.
    pub fn wait(&self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now).saturating_sub(self.time_for(self.rate.burst))
    }

    fn time_for(&self, n: u64) -> Duration {
        let ns = u128::from(n) * 1_000_000_000 / u128::from(self.rate.per_second);
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }
}

/// What one device may do, over all its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    messages: Bucket,
    bytes: Bucket,
}

impl Pace {
    pub fn new(messages: Rate, bytes: Rate) -> Self {
        Self { messages: Bucket::new(messages), bytes: Bucket::new(bytes) }
    }

    pub fn charge(&mut self, messages: u64, bytes: u64, now: Duration) {
        self.messages.charge(messages, now);
        self.bytes.charge(bytes, now);
    }

    pub fn wait(&self, now: Duration) -> Duration {
        self.messages.wait(now).max(self.bytes.wait(now))
    }
}

/// How long to wait before trying again: doubling from a quarter of a second to `cap`, with full jitter from half on,
/// so that a site's gateways do not come back all at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    attempt: u32,
    cap: Duration,
}

const FIRST_WAIT: Duration = Duration::from_millis(250);

impl Backoff {
    pub fn new(cap: Duration) -> Self {
        Self { attempt: 0, cap }
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// After a failure. `random` is any number; `asked` is what the server asked for (Retry-After), which is honoured up
    /// to ten times the cap: a server that says "in a year" is not believed.
    pub fn wait(&mut self, random: u64, asked: Option<Duration>) -> Duration {
        let full = FIRST_WAIT.saturating_mul(1 << self.attempt.min(16)).min(self.cap);
        self.attempt = self.attempt.saturating_add(1);
        let jitter = full.mul_f64((random % 1024) as f64 / 2048.0);
        let own = full / 2 + jitter;
        asked.map_or(own, |asked| asked.min(self.cap * 10).max(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 20 });
        let now = 100 * S;
        for _ in 0..20 {
            assert_eq!(bucket.wait(now), Duration::ZERO);
            bucket.charge(1, now);
        }
        assert_eq!(bucket.wait(now), Duration::ZERO);
        bucket.charge(1, now);
        assert_eq!(bucket.wait(now), S / 10);
        assert_eq!(bucket.wait(now + S / 10), Duration::ZERO);
    }

    /// Over a long time no more than burst + rate × time gets through, however it is asked for.
    #[test]
    fn nobody_gets_more_than_the_rate_and_one_burst() {
        for step_ms in [1, 7, 100, 1300] {
            let mut bucket = Bucket::new(Rate { per_second: 50, burst: 30 });
            let mut passed = 0;
            for i in 0..(20_000 / step_ms) {
                let now = Duration::from_millis(i * step_ms);
                if bucket.wait(now) == Duration::ZERO {
                    bucket.charge(3, now);
                    passed += 3;
                }
            }
            assert!(passed <= 50 * 20 + 30 + 3, "step {step_ms} ms: {passed}");
        }
    }

    #[test]
    fn debt_is_paid_and_idleness_saves_no_more_than_a_burst() {
        let mut pace =
            Pace::new(Rate { per_second: 100, burst: 10 }, Rate { per_second: 1000, burst: 500 });
        pace.charge(1, 2500, S);
        assert_eq!(pace.wait(S), 2 * S);
        assert_eq!(pace.wait(3 * S), Duration::ZERO);
        pace.charge(10, 0, 1000 * S);
        assert_eq!(pace.wait(1000 * S), Duration::ZERO);
        pace.charge(1, 0, 1000 * S);
        assert!(pace.wait(1000 * S) > Duration::ZERO);
    }

    #[test]
    fn waiting_doubles_up_to_its_cap_and_a_server_may_ask_for_more() {
        let cap = 30 * S;
        let mut backoff = Backoff::new(cap);
        for expected_ms in [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000] {
            let mut again = backoff;
            let least = again.wait(0, None);
            let most = backoff.wait(1023, None);
            assert_eq!(least, Duration::from_millis(expected_ms) / 2);
            assert!(most <= Duration::from_millis(expected_ms) && most > least);
        }
        assert_eq!(backoff.wait(0, Some(60 * S)), 60 * S);
        assert_eq!(backoff.wait(0, Some(86_400 * S)), 300 * S);
        assert!(backoff.wait(0, Some(Duration::ZERO)) >= 15 * S);
        backoff.reset();
        assert!(backoff.wait(1023, None) <= FIRST_WAIT);
    }
}
