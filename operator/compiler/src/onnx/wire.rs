//! The wire format of protocol buffers (protobuf.dev/programming-guides/encoding), read only, within the bytes given.

use super::OnnxError;

/// Fields of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    rest: &'a [u8],
}

/// One field's content by its wire type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

impl<'a> Message<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], OnnxError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(OnnxError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, OnnxError> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { OnnxError::Truncated } else { OnnxError::malformed("a number is too long") })
    }

    /// The next field's number and content; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, OnnxError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| OnnxError::malformed("a field's number is out of range"))?;
        if number == 0 {
            return Err(OnnxError::malformed("a field has the number 0"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.take(8)?.try_into().unwrap_or_default()),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| OnnxError::Truncated)?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(self.take(4)?.try_into().unwrap_or_default()),
            _ => return Err(OnnxError::malformed("a field has a wire type that ONNX does not use")),
        };
        Ok(Some((number, field)))
    }
}

fn wrong_type<T>() -> Result<T, OnnxError> {
    Err(OnnxError::malformed("a field has another type than ONNX gives it"))
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], OnnxError> {
        match self {
            Self::Bytes(b) => Ok(b),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => wrong_type(),
        }
    }

    pub(super) fn message(self) -> Result<Message<'a>, OnnxError> {
        self.bytes().map(Message::new)
    }

    pub(super) fn text(self) -> Result<String, OnnxError> {
        let text = str::from_utf8(self.bytes()?).map_err(|_| OnnxError::malformed("a name is not UTF-8"))?;
        if text.len() > super::MAX_NAME_BYTES {
            return Err(OnnxError::malformed("a name is longer than 4 KiB"));
        }
        Ok(text.to_owned())
    }

    pub(super) fn int(self) -> Result<i64, OnnxError> {
        match self {
            Self::Varint(v) => Ok(v as i64),
            Self::Fixed64(_) | Self::Bytes(_) | Self::Fixed32(_) => wrong_type(),
        }
    }

    /// An enum or an int32; protobuf sign-extends negative ones to 64 bits.
    pub(super) fn int32(self) -> Result<i32, OnnxError> {
        self.int().map(|v| v as i32)
    }

    pub(super) fn float(self) -> Result<f32, OnnxError> {
        match self {
            Self::Fixed32(b) => Ok(f32::from_le_bytes(b)),
            Self::Varint(_) | Self::Fixed64(_) | Self::Bytes(_) => wrong_type(),
        }
    }

    /// Adds to a repeated number, packed or not.
    pub(super) fn ints_into(self, out: &mut Vec<i64>) -> Result<(), OnnxError> {
        match self {
            Self::Varint(v) => out.push(v as i64),
            Self::Bytes(bytes) => {
                let mut packed = Message::new(bytes);
                while !packed.rest.is_empty() {
                    out.push(packed.varint()? as i64);
                }
            }
            Self::Fixed64(_) | Self::Fixed32(_) => return wrong_type(),
        }
        Ok(())
    }

    /// Adds to a repeated float, packed or not.
    pub(super) fn floats_into(self, out: &mut Vec<f32>) -> Result<(), OnnxError> {
        match self {
            Self::Fixed32(b) => out.push(f32::from_le_bytes(b)),
            Self::Bytes(bytes) => {
                let (chunks, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(OnnxError::malformed("packed floats are cut"));
                }
                out.extend(chunks.iter().map(|c| f32::from_le_bytes(*c)));
            }
            Self::Varint(_) | Self::Fixed64(_) => return wrong_type(),
        }
        Ok(())
    }

    /// Adds to a repeated double, packed or not.
    pub(super) fn doubles_into(self, out: &mut Vec<f64>) -> Result<(), OnnxError> {
        match self {
            Self::Fixed64(b) => out.push(f64::from_le_bytes(b)),
            Self::Bytes(bytes) => {
                let (chunks, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(OnnxError::malformed("packed doubles are cut"));
                }
                out.extend(chunks.iter().map(|c| f64::from_le_bytes(*c)));
            }
            Self::Varint(_) | Self::Fixed32(_) => return wrong_type(),
        }
        Ok(())
    }
}
