//! Scalars that check themselves while they are read, so that an error carries the path of its field.

use std::{
    net::{AddrParseError, IpAddr},
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_yaml::Value;

/// A port: 1 to 65535.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Port(pub(crate) u16);

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.map(Self).ok_or_else(|| format!("{number} is not a port; write a number from 1 to 65535"))
    }
}

/// An IP address alone, or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Subnet(pub(crate) IpNet);

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let single = || text.parse().map(|address: IpAddr| IpNet::from(address));
        let parsed = text.parse().or_else(|_| single());
        parsed.map(|net: IpNet| Self(net.trunc())).map_err(|_: AddrParseError| {
            format!("\"{text}\" is neither an IP address nor a CIDR; write 10.1.2.3 or 10.1.0.0/16")
        })
    }
}

impl Subnet {
    /// The address, where the range holds exactly one.
    pub(crate) fn single(self) -> Option<IpAddr> {
        (self.0.prefix_len() == self.0.max_prefix_len()).then(|| self.0.addr())
    }
}

/// A duration as Istio writes it: `10s`, `1.5s`, `1m30s`, `500ms`; whole milliseconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Span(pub(crate) Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let nanoseconds = nanoseconds(&text)
            .ok_or_else(|| format!("\"{text}\" is not a duration; write for example 10s or 500ms"))?;
        if nanoseconds == 0 || nanoseconds % 1_000_000 != 0 {
            return Err(format!("\"{text}\" is not a whole number of milliseconds, at least 1ms"));
        }
        Ok(Self(Duration::from_nanos(nanoseconds)))
    }
}

/// A duration that a socket option takes: whole seconds, from 1 to what the kernel allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Seconds(pub(crate) Duration);

impl Seconds {
    /// The kernel's own bound of `TCP_KEEPIDLE` and `TCP_KEEPINTVL`.
    const MOST: u64 = 32_767;
}

impl TryFrom<String> for Seconds {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let span = Span::try_from(text.clone())?.0;
        let fits = span.subsec_nanos() == 0 && span.as_secs() <= Self::MOST;
        fits.then_some(Self(span))
            .ok_or_else(|| format!("\"{text}\" is not a whole number of seconds from 1s to {}s", Self::MOST))
    }
}

/// How many of something: 0 to the most that Istio's field holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Count(pub(crate) u32);

impl TryFrom<i64> for Count {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let count = u32::try_from(number).ok().filter(|count| i32::try_from(*count).is_ok());
        count.map(Self).ok_or_else(|| format!("{number} is not a number from 0 to {}", i32::MAX))
    }
}

/// A share in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct Percent(pub(crate) u32);

impl TryFrom<i64> for Percent {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let percent = u32::try_from(number).ok().filter(|percent| *percent <= 100);
        percent.map(Self).ok_or_else(|| format!("{number} is not a percentage; write a number from 0 to 100"))
    }
}

/// The sum of `<decimal><unit>` pairs.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        sum = sum.checked_add(scaled(number, unit_nanoseconds(unit)?)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

/// One unit in nanoseconds.
fn unit_nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// The decimal `number` times `unit`, exactly; digits below one nanosecond are refused.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        let digit = u64::from(digit.to_digit(10)?);
        if !place.is_multiple_of(10) && digit != 0 {
            return None;
        }
        place /= 10;
        value = value.checked_add(digit * place)?;
    }
    Some(value)
}

/// A port by number, or by the name that the container gives it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(crate) enum TargetPort {
    /// The number itself.
    Number(u16),
    /// A name among the containers' ports.
    Name(String),
}

impl TryFrom<Value> for TargetPort {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(name) => Ok(Self::Name(name)),
            Value::Number(number) => {
                Port::try_from(number.as_i64().unwrap_or(-1)).map(|port| Self::Number(port.0))
            }
            _ => Err("neither a port number nor the name of a container's port".to_owned()),
        }
    }
}

/// Whether a field is there that is not served as a whole; its content is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present(pub(crate) bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        for (text, want) in [
            ("10s", Some(10_000)),
            ("0.5s", Some(500)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1000us", Some(1)),
            ("0.0005s", None),
            ("0s", None),
            ("10", None),
            ("5 s", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("99999999999999h", None),
            ("1.5ns", None),
        ] {
            let got = Span::try_from(text.to_owned()).ok().map(|span| span.0.as_millis());
            assert_eq!(got, want, "{text}");
        }
    }
}
