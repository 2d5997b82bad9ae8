//! Quantities as people write them: `256Mi`, `200ms`, `10%`, `1e-4`. They stay text in the objects, so that what was
//! written is what is shown; the schema's rules and these parsers agree on what may be written.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::rules;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {kind}; write {expected}")]
pub struct QuantityError {
    value: String,
    kind: &'static str,
    expected: &'static str,
}

macro_rules! quantity {
    ($(#[$doc:meta])* $t:ident, $pattern:literal, $max:literal, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(extend("x-kubernetes-validations" = rules(&[$t::RULE])))]
        pub struct $t(#[schemars(length(max = $max))] pub String);

        impl $t {
            fn error(&self) -> QuantityError {
                QuantityError { value: self.0.chars().take(40).collect(), kind: $kind, expected: $expected }
            }

            /// What may be written, for people.
            pub const EXPECTED: &'static str = $expected;

            /// The schema's rule: what the API server and directory mode both hold the text to.
            pub const RULE: (&'static str, &'static str) = (concat!("self.matches('", $pattern, "')"), concat!("write ", $expected));
        }

        impl From<&str> for $t {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

quantity!(
    /// Bytes: `256Mi`, `50Mi`, `1Gi`, `65536`.
    ByteQuantity, "^[0-9]{1,15}(Ki|Mi|Gi|Ti)?$", 18, "a number of bytes", "digits and Ki, Mi, Gi or Ti, like 256Mi"
);
quantity!(
    /// A span of time: `200ms`, `10m`, `1h30m`.
    Span, "^([0-9]{1,9}(ms|s|m|h))+$", 40, "a span of time", "digits and ms, s, m or h, like 200ms or 1h30m"
);
quantity!(
    /// A share: `95%`, `99.5%`; one decimal place at most.
    Share, "^(100|[0-9]{1,2}([.][0-9])?)%$", 5, "a share", "0% to 100%, with one decimal place at most, like 95%"
);
quantity!(
    /// A number that is not negative, as text, because the API has no floats: `1e-4`, `0.001`.
    Decimal, "^[0-9]{1,9}([.][0-9]{1,12})?(e-?[0-9]{1,2})?$", 30, "a number", "a number like 0.001 or 1e-4"
);

fn split_digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

impl ByteQuantity {
    /// In bytes.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        let parse = || {
            let (n, unit) = split_digits(&self.0)?;
            let shift = match unit {
                "" => 0,
                "Ki" => 10,
                "Mi" => 20,
                "Gi" => 30,
                "Ti" => 40,
                _ => return None,
            };
            n.checked_mul(1 << shift)
        };
        parse().ok_or_else(|| self.error())
    }
}

impl Span {
    /// In milliseconds.
    pub fn millis(&self) -> Result<u64, QuantityError> {
        let parse = || {
            let (mut rest, mut sum) = (self.0.as_str(), 0u64);
            if rest.is_empty() {
                return None;
            }
            while !rest.is_empty() {
                let (n, tail) = split_digits(rest)?;
                let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
                let (unit, next) = tail.split_at(end);
                let factor = match unit {
                    "ms" => 1,
                    "s" => 1_000,
                    "m" => 60_000,
                    "h" => 3_600_000,
                    _ => return None,
                };
                sum = sum.checked_add(n.checked_mul(factor)?)?;
                rest = next;
            }
            Some(sum)
        };
        parse().ok_or_else(|| self.error())
    }
}

impl Share {
    /// In per mille, 0–1000.
    pub fn per_mille(&self) -> Result<u32, QuantityError> {
        let parse = || {
            let number = self.0.strip_suffix('%')?;
            let (whole, tenth) = match number.split_once('.') {
                Some((whole, tenth)) if tenth.len() == 1 => (whole, tenth),
                Some(_) => return None,
                None => (number, "0"),
            };
            if whole.is_empty() || whole.len() > 3 || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                return None;
            }
            let share = whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?;
            (share <= 1000).then_some(share)
        };
        parse().ok_or_else(|| self.error())
    }
}

impl Decimal {
    /// As a number, finite and not negative.
    pub fn value(&self) -> Result<f64, QuantityError> {
        let plain = self.0.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'-'));
        let starts = self.0.starts_with(|c: char| c.is_ascii_digit());
        match self.0.parse::<f64>() {
            Ok(value) if plain && starts && value.is_finite() => Ok(value),
            _ => Err(self.error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_what_people_write() {
        assert_eq!(ByteQuantity::from("256Mi").bytes(), Ok(256 << 20));
        assert_eq!(ByteQuantity::from("7").bytes(), Ok(7));
        assert_eq!(Span::from("200ms").millis(), Ok(200));
        assert_eq!(Span::from("1h30m").millis(), Ok(5_400_000));
        assert_eq!(Share::from("99.5%").per_mille(), Ok(995));
        assert_eq!(Share::from("100%").per_mille(), Ok(1000));
        assert_eq!(Decimal::from("1e-4").value(), Ok(1e-4));
    }

    #[test]
    fn and_refuse_the_rest_with_what_to_write() {
        for bad in ["", "Mi", "-1", "1.5Gi", "256MB", "99999999999999999999", "999999999999999Ti", " 1"] {
            assert!(ByteQuantity::from(bad).bytes().is_err(), "{bad:?}");
        }
        for bad in ["", "5", "s", "1d", "-1s", "1 s", "99999999999999999999h"] {
            assert!(Span::from(bad).millis().is_err(), "{bad:?}");
        }
        for bad in ["", "%", "101%", "5", "1.55%", ".5%", "+5%", "1e1%", "100.5%"] {
            assert!(Share::from(bad).per_mille().is_err(), "{bad:?}");
        }
        for bad in ["", "-1", "nan", "inf", ".5", "1e999", "1_0", "+1"] {
            assert!(Decimal::from(bad).value().is_err(), "{bad:?}");
        }
        assert_eq!(
            Span::from("5").millis().unwrap_err().to_string(),
            "\"5\" is not a span of time; write digits and ms, s, m or h, like 200ms or 1h30m"
        );
    }
}
