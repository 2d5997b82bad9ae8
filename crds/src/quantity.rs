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
    ByteQuantity, "^([0-9]{1,15}(Ki)?|[0-9]{1,12}Mi|[0-9]{1,9}Gi|[0-9]{1,6}Ti)$", 18, "a number of bytes", "digits and Ki, Mi, Gi or Ti, like 256Mi, less than 1Ei"
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

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn number(digits: &str, most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| fits)
}

impl Span {
    /// For spans that bound something: none at all would mean never.
    pub const NOT_ZERO: (&'static str, &'static str) =
        ("!self.matches('^(0+(ms|s|m|h))+$')", "no time at all is too short: write more than 0s, like 200ms or 1h30m");
}

impl ByteQuantity {
    /// In bytes.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        let parse = || {
            let (digits, unit) = split_digits(&self.0);
            // So many digits that the largest number is below 2⁶³, whatever its unit; the rule says the same.
            let (most, shift) = match unit {
                "" => (15, 0),
                "Ki" => (15, 10),
                "Mi" => (12, 20),
                "Gi" => (9, 30),
                "Ti" => (6, 40),
                _ => return None,
            };
            number(digits, most)?.checked_mul(1 << shift)
        };
        parse().ok_or_else(|| self.error())
    }
}

impl Span {
    /// In milliseconds.
    pub fn millis(&self) -> Result<u64, QuantityError> {
        let parse = || {
            let (mut rest, mut sum) = (self.0.as_str(), 0u64);
            if rest.is_empty() || rest.len() > 40 {
                return None;
            }
            while !rest.is_empty() {
                let (digits, tail) = split_digits(rest);
                let n = number(digits, 9)?;
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
            let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
            if number == "100" {
                return Some(1000);
            }
            u32::try_from(self::number(whole, 2)? * 10 + self::number(tenth, 1)?).ok()
        };
        parse().ok_or_else(|| self.error())
    }
}

impl Decimal {
    /// As a number, finite and not negative.
    pub fn value(&self) -> Result<f64, QuantityError> {
        let parse = || {
            let (mantissa, exponent) = self.0.split_once('e').unwrap_or((&self.0, "0"));
            let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
            number(whole, 9)?;
            number(fraction, 12)?;
            number(exponent.strip_prefix('-').unwrap_or(exponent), 2)?;
            // At most 10⁹ · 10⁹⁹: finite.
            self.0.parse::<f64>().ok()
        };
        parse().ok_or_else(|| self.error())
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
        for bad in
            ["", "Mi", "-1", "1.5Gi", "256MB", "99999999999999999999", "999999999999999Ti", "0000000000000001", " 1"]
        {
            assert!(ByteQuantity::from(bad).bytes().is_err(), "{bad:?}");
        }
        for bad in ["", "5", "s", "1d", "-1s", "1 s", "99999999999999999999h"] {
            assert!(Span::from(bad).millis().is_err(), "{bad:?}");
        }
        for bad in ["", "%", "101%", "5", "1.55%", ".5%", "+5%", "1e1%", "100.5%", "100.0%", "005%"] {
            assert!(Share::from(bad).per_mille().is_err(), "{bad:?}");
        }
        for bad in ["", "-1", "nan", "inf", ".5", "1e999", "1_0", "+1", "1.", "1e", "1e5.5"] {
            assert!(Decimal::from(bad).value().is_err(), "{bad:?}");
        }
        assert_eq!(
            Span::from("5").millis().unwrap_err().to_string(),
            "\"5\" is not a span of time; write digits and ms, s, m or h, like 200ms or 1h30m"
        );
    }
}
