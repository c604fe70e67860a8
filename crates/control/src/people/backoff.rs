//! How long who guesses passwords has to wait: a pure core over counts that are forgotten.
//!
//! ```text
//! counted by             free tries   then a wait of         at most   passed over
//! address and name       5            1 s, doubling          5 min     never
//! address                30           1 s, doubling          30 s      for a pair that has signed in
//! name                   30           1 s, doubling          30 s      for a pair that has signed in, or has not failed yet
//! ```
//!
//! It delays and never locks out: whoever is attacked from elsewhere signs in from an address where he has done so before as
//! if nothing were, and from a new one with his first try. Sessions do not pass here. An attempt counts as failed from when it
//! begins, so that a thousand at a time gain nothing, and is taken back when it succeeds or is not judged.
//!
//! Memory is bounded: of each kind the last [`REMEMBERED`] are kept, and at most twice as many.

use model::{Digest, Timestamp};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Of each kind, some 100 bytes each: 10 MB at the most. To make it forget one, so many others have to fail.
const REMEMBERED: usize = 16_384;

/// Who has been quiet for so long has failed never.
const FORGET: Duration = Duration::from_secs(3600);

struct Rule {
    free: u32,
    wait_max: Duration,
}

const PAIR: Rule = Rule { free: 5, wait_max: Duration::from_secs(300) };
const NET: Rule = Rule { free: 30, wait_max: Duration::from_secs(30) };
const NAME: Rule = Rule { free: 30, wait_max: Duration::from_secs(30) };

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Failures {
    count: u32,
    last_us: i64,
}

/// Where from: an IPv4 address, or the half of an IPv6 one that its network was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Net(IpAddr);

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        })
    }
}

/// An attempt that may be judged. Its outcome is told to [`Backoff::end`].
#[derive(Debug)]
pub struct Attempt {
    net: Net,
    name: Digest,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Good,
    Failed,
    /// Nobody looked at it: there was no room.
    NotJudged,
}

/// See the module's head.
#[derive(Debug)]
pub struct Backoff {
    pairs: Recent<(Net, Digest), Failures>,
    nets: Recent<Net, Failures>,
    names: Recent<Digest, Failures>,
    good: Recent<(Net, Digest), ()>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::remembering(REMEMBERED)
    }
}

impl Backoff {
    fn remembering(remember: usize) -> Self {
        Self {
            pairs: Recent::new(remember),
            nets: Recent::new(remember),
            names: Recent::new(remember),
            good: Recent::new(remember),
        }
    }

    /// Whether an attempt may be made now, or how long it has to wait. The name is kept as its digest: it is of any length.
    pub fn begin(&mut self, net: Net, name: &str, now: Timestamp) -> Result<Attempt, Duration> {
        let name = trust::digest(name.as_bytes());
        let pair = (net, name);
        let of_pair = self.pairs.get(&pair).unwrap_or_default().at(now);
        let is_known = self.good.get(&pair).is_some();
        let mut wait = PAIR.wait(of_pair, now);
        if !is_known {
            wait = wait.max(NET.wait(self.nets.get(&net).unwrap_or_default(), now));
        }
        if !is_known && of_pair.count > 0 {
            wait = wait.max(NAME.wait(self.names.get(&name).unwrap_or_default(), now));
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        let more = |failures: Option<Failures>| {
            let failures = failures.unwrap_or_default().at(now);
            Failures { count: failures.count.saturating_add(1), last_us: now.as_us() }
        };
        self.pairs.put(pair, more(self.pairs.get(&pair)));
        self.nets.put(net, more(self.nets.get(&net)));
        self.names.put(name, more(self.names.get(&name)));
        Ok(Attempt { net, name })
    }

    pub fn end(&mut self, attempt: Attempt, ended: Ended) {
        if ended == Ended::Failed {
            return;
        }
        let Attempt { net, name } = attempt;
        let less =
            |failures: Failures| Failures { count: failures.count.saturating_sub(1), ..failures };
        self.nets.change(&net, less);
        self.names.change(&name, less);
        let pair = (net, name);
        match ended {
            Ended::Good => {
                self.pairs.change(&pair, |_| Failures::default());
                self.good.put(pair, ());
            }
            _ => self.pairs.change(&pair, less),
        }
    }
}

impl Failures {
    /// As it counts now.
    fn at(self, now: Timestamp) -> Self {
        let forgotten = self.last_us.saturating_add(FORGET.as_micros() as i64) <= now.as_us();
        if forgotten { Self::default() } else { self }
    }
}

impl Rule {
    fn wait(&self, failures: Failures, now: Timestamp) -> Duration {
        let failures = failures.at(now);
        let Some(beyond) = failures.count.checked_sub(self.free) else { return Duration::ZERO };
        let wait = Duration::from_secs(1 << beyond.min(20)).min(self.wait_max);
        // A clock that was set back makes nobody wait for longer than the whole of it.
        let passed = now.as_us().saturating_sub(failures.last_us);
        wait.saturating_sub(Duration::from_micros(u64::try_from(passed).unwrap_or(0)))
    }
}

/// At least the last `remember` entries that were put, and at most twice as many.
#[derive(Debug)]
struct Recent<K, V> {
    remember: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash + Copy, V: Copy> Recent<K, V> {
    fn new(remember: usize) -> Self {
        Self { remember, young: HashMap::new(), old: HashMap::new() }
    }

    fn get(&self, key: &K) -> Option<V> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.remember && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn change(&mut self, key: &K, change: impl Fn(V) -> V) {
        let kept = match self.young.get_mut(key) {
            Some(young) => Some(young),
            None => self.old.get_mut(key),
        };
        if let Some(kept) = kept {
            *kept = change(*kept);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: i64 = 1_000_000;

    fn net(n: u32) -> Net {
        IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)).into()
    }

    fn fail(backoff: &mut Backoff, net: Net, name: &str, at: i64) -> Result<(), Duration> {
        let attempt = backoff.begin(net, name, Timestamp(at))?;
        backoff.end(attempt, Ended::Failed);
        Ok(())
    }

    #[test]
    fn who_guesses_waits_longer_each_time_and_never_for_ever() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            fail(&mut backoff, net(1), "anna", SECOND).unwrap();
        }
        let (mut at, mut waits) = (SECOND, Vec::new());
        for _ in 0..12 {
            let wait = fail(&mut backoff, net(1), "anna", at).unwrap_err();
            waits.push(wait.as_secs());
            at += wait.as_micros() as i64;
            fail(&mut backoff, net(1), "anna", at).unwrap();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(fail(&mut backoff, net(2), "anna", at).is_ok(), "elsewhere nothing is");
        let later = at + FORGET.as_micros() as i64;
        for _ in 0..5 {
            fail(&mut backoff, net(1), "anna", later).unwrap();
        }
    }

    /// An attacker with many addresses and all the time there is.
    #[test]
    fn nobody_is_locked_out_by_who_guesses_at_his_name_from_elsewhere() {
        let mut backoff = Backoff::default();
        let home = backoff.begin(net(1), "anna", Timestamp(SECOND)).unwrap();
        backoff.end(home, Ended::Good);
        let mut refused = 0;
        for n in 0..10_000_u32 {
            let at = SECOND + i64::from(n) * 1000;
            refused += usize::from(fail(&mut backoff, net(2 + n % 500), "anna", at).is_err());
        }
        let at = Timestamp(SECOND + 10_000_000);
        assert!(refused > 8000, "{refused}");
        let home = backoff.begin(net(1), "anna", at).expect("where she has signed in before");
        backoff.end(home, Ended::Good);
        let away = backoff.begin(net(9999), "anna", at).expect("the first try from a new address");
        backoff.end(away, Ended::Failed);
        assert!(backoff.begin(net(9999), "anna", at).is_err(), "the second one waits");
        assert!(backoff.begin(net(9998), "boris", at).is_ok());
    }

    #[test]
    fn an_address_that_tries_many_names_waits_and_attempts_at_once_count_each() {
        let mut backoff = Backoff::default();
        let open: Vec<_> = (0..30)
            .map(|n| backoff.begin(net(1), &format!("name-{n}"), Timestamp(SECOND)).unwrap())
            .collect();
        assert!(backoff.begin(net(1), "one-more", Timestamp(SECOND)).is_err());
        for attempt in open {
            backoff.end(attempt, Ended::NotJudged);
        }
        assert!(backoff.begin(net(1), "one-more", Timestamp(SECOND)).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| Net::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    /// INV-COST-1.
    #[test]
    fn its_memory_is_bounded_whatever_names_and_addresses_come() {
        let mut backoff = Backoff::remembering(64);
        for n in 0..10_000 {
            let attempt = backoff.begin(net(n), &format!("name-{n}"), Timestamp(SECOND)).unwrap();
            backoff.end(attempt, if n % 2 == 0 { Ended::Good } else { Ended::Failed });
        }
        for len in
            [backoff.pairs.len(), backoff.nets.len(), backoff.names.len(), backoff.good.len()]
        {
            assert!(len <= 128, "{len}");
        }
    }
}
