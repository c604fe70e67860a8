//! What a sealed message says of itself, read with another CBOR library than the product's (RFC 9052, RFC 8428).

use anyhow::{Context, Result, bail};
use ciborium::Value;
use std::fmt;

/// Our private-use header label, as `docs/formats/envelope.md` has it.
const LABEL_SEALED: i128 = -65537;

/// One message by its counter, and how many readings it carries (a loss notice carries none).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sealed {
    pub key: String,
    pub epoch: u32,
    pub sequence: u64,
    pub readings: usize,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.key, self.epoch, self.sequence, self.readings)
    }
}

impl Sealed {
    pub fn read(message: &[u8]) -> Result<Self> {
        let parts = array(ciborium::from_reader(message).context("not CBOR")?)?;
        let [Value::Bytes(protected), _, Value::Bytes(payload), _] = parts.as_slice() else {
            bail!("not a COSE_Sign1");
        };
        let Value::Map(header) = ciborium::from_reader(protected.as_slice())? else {
            bail!("the protected header is not a map");
        };
        let label = |wanted: i128| {
            let found = header
                .iter()
                .find(|(k, _)| k.as_integer().is_some_and(|k| i128::from(k) == wanted));
            found.map(|(_, v)| v.clone()).with_context(|| format!("no header {wanted}"))
        };
        let key = label(4)?.into_bytes().ok().context("header 4 is not bytes")?;
        let counter = array(label(LABEL_SEALED)?)?;
        let number = |i: usize| -> Result<u64> {
            let value =
                counter.get(i).and_then(Value::as_integer).context("a counter is missing")?;
            Ok(u64::try_from(i128::from(value))?)
        };
        let content_type = label(3)?.into_text().ok().context("header 3 is not text")?;
        let readings = match content_type.as_str() {
            "application/vnd.plimsoll.readings-v1+cbor" => {
                array(ciborium::from_reader(payload.as_slice())?)?.len()
            }
            _ => 0,
        };
        let key = key.iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { key, epoch: u32::try_from(number(0)?)?, sequence: number(1)?, readings })
    }
}

fn array(value: Value) -> Result<Vec<Value>> {
    value.into_array().ok().context("expected a CBOR array")
}
