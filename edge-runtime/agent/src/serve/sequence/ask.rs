//! What a request says of its sequence: Triton's `sequence_id`, `sequence_start` and `sequence_end`.

use ballast_bundle::state::MAX_SEQUENCE_ID;
use serde_json::Value;

/// A client's name of a sequence. 7 and "7" are two names, as in Triton.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SequenceId {
    /// Not 0.
    Number(u64),
    /// Not empty, at most [`MAX_SEQUENCE_ID`] bytes.
    Text(String),
}

impl SequenceId {
    /// 0 is no sequence.
    pub(crate) fn number(id: u64) -> Option<Self> {
        (id != 0).then_some(Self::Number(id))
    }

    /// The empty text is no sequence.
    pub(crate) fn text(id: &str) -> Result<Option<Self>, String> {
        if id.len() > MAX_SEQUENCE_ID {
            return Err(format!("sequence_id has {} bytes; it can have {MAX_SEQUENCE_ID}", id.len()));
        }
        Ok((!id.is_empty()).then(|| Self::Text(id.to_owned())))
    }

    /// As the client wrote it.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Number(id) => Value::from(*id),
            Self::Text(id) => Value::from(id.as_str()),
        }
    }
}

/// A request's place in its sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Which sequence; a model that carries state needs one.
    pub(crate) id: Option<SequenceId>,
    /// It is the first of the sequence: whatever was carried under this name before is dropped.
    pub(crate) start: bool,
    /// It is the last one.
    pub(crate) end: bool,
    /// The version that was asked for by name. Its sequences are apart from those of whoever serves.
    pub(crate) version: Option<String>,
}

impl Ask {
    /// Out of a request's parameters, as JSON has them. `Err` is what a person reads.
    pub(crate) fn read(id: Option<&Value>, start: Option<&Value>, end: Option<&Value>) -> Result<Self, String> {
        let id = match id {
            None | Some(Value::Null) => None,
            Some(Value::String(id)) => SequenceId::text(id)?,
            Some(Value::Number(id)) => match id.as_u64() {
                Some(id) => SequenceId::number(id),
                None => {
                    return Err(
                        "sequence_id must be a whole number from 1 to 18446744073709551615, or a text".to_owned()
                    );
                }
            },
            Some(_) => return Err("sequence_id must be a number or a text".to_owned()),
        };
        let flag = |name: &str, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(format!("{name} must be true or false")),
        };
        Ok(Self { id, start: flag("sequence_start", start)?, end: flag("sequence_end", end)?, version: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_of_a_name_are_read_and_zero_is_none() {
        let id = |value: Value| Ask::read(Some(&value), None, None).map(|ask| ask.id);
        assert_eq!(id(json!(7)), Ok(Some(SequenceId::Number(7))));
        assert_eq!(id(json!(u64::MAX)), Ok(Some(SequenceId::Number(u64::MAX))));
        assert_eq!(id(json!("7")), Ok(Some(SequenceId::Text("7".into()))));
        assert_eq!(id(json!("x".repeat(128))).map(|id| id.is_some()), Ok(true));
        for none in [json!(0), json!(""), json!(null)] {
            assert_eq!(id(none), Ok(None));
        }
        for (wrong, says) in [
            (json!("x".repeat(129)), "has 129 bytes"),
            (json!(-1), "whole number from 1"),
            (json!(1.5), "whole number from 1"),
            (json!([1]), "number or a text"),
            (json!(true), "number or a text"),
        ] {
            let error = id(wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let ask = Ask::read(Some(&json!(1)), Some(&json!(true)), Some(&json!(false))).unwrap();
        assert!(ask.start && !ask.end);
        assert!(Ask::read(None, Some(&json!(1)), None).unwrap_err().contains("sequence_start must be true or false"));
        assert!(Ask::read(None, None, Some(&json!("yes"))).unwrap_err().contains("sequence_end"));
    }
}
