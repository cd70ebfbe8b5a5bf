//! Protocol buffers by hand: fields out, fields in.

/// A message being written.
#[derive(Debug, Clone, Default)]
pub struct Message(pub Vec<u8>);

fn varint(mut n: u64, into: &mut Vec<u8>) {
    while n >= 0x80 {
        into.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    into.push(n as u8);
}

impl Message {
    fn tag(&mut self, field: u32, wire: u8) {
        varint((u64::from(field) << 3) | u64::from(wire), &mut self.0);
    }

    /// A number.
    pub fn number(mut self, field: u32, n: i64) -> Self {
        self.tag(field, 0);
        varint(n as u64, &mut self.0);
        self
    }

    /// Bytes, text or a message.
    pub fn bytes(mut self, field: u32, bytes: impl AsRef<[u8]>) -> Self {
        self.tag(field, 2);
        varint(bytes.as_ref().len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Each as [`Self::bytes`].
    pub fn all<T: AsRef<[u8]>>(self, field: u32, items: impl IntoIterator<Item = T>) -> Self {
        items.into_iter().fold(self, |message, item| message.bytes(field, item))
    }

    /// A group.
    pub fn group(mut self, field: u32, inner: Message) -> Self {
        self.tag(field, 3);
        self.0.extend_from_slice(&inner.0);
        self.tag(field, 4);
        self
    }
}

/// A field that was read.
#[derive(Debug, Clone)]
pub enum Value {
    /// A number.
    Number(i64),
    /// Bytes, text or a message.
    Bytes(Vec<u8>),
    /// A group.
    Group(Fields),
}

/// A message that was read.
#[derive(Debug, Clone, Default)]
pub struct Fields(pub Vec<(u32, Value)>);

impl Fields {
    /// All fields of a message.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut at = 0;
        let fields = Self::until(bytes, &mut at, None)?;
        if at == bytes.len() { Ok(fields) } else { Err("bytes after the message".to_owned()) }
    }

    fn until(bytes: &[u8], at: &mut usize, group: Option<u32>) -> Result<Self, String> {
        let mut fields = Vec::new();
        while *at < bytes.len() {
            let key = read_varint(bytes, at)?;
            let field = (key >> 3) as u32;
            let value = match key & 7 {
                0 => Value::Number(read_varint(bytes, at)? as i64),
                2 => {
                    let len = read_varint(bytes, at)? as usize;
                    let end = at.checked_add(len).filter(|end| *end <= bytes.len()).ok_or("a length beyond the end")?;
                    let value = bytes[*at..end].to_vec();
                    *at = end;
                    Value::Bytes(value)
                }
                3 => Value::Group(Self::until(bytes, at, Some(field))?),
                4 if group == Some(field) => return Ok(Self(fields)),
                other => return Err(format!("wire type {other} in field {field}")),
            };
            fields.push((field, value));
        }
        if group.is_some() { Err("a group without an end".to_owned()) } else { Ok(Self(fields)) }
    }

    /// The last number of a field.
    pub fn number(&self, field: u32) -> Option<i64> {
        self.0.iter().rev().find_map(|(n, value)| match value {
            Value::Number(number) if *n == field => Some(*number),
            _ => None,
        })
    }

    /// Every value of bytes of a field.
    pub fn all(&self, field: u32) -> Vec<&[u8]> {
        let bytes = self.0.iter().filter_map(|(n, value)| match value {
            Value::Bytes(bytes) if *n == field => Some(&bytes[..]),
            _ => None,
        });
        bytes.collect()
    }

    /// The last value of bytes of a field.
    pub fn bytes(&self, field: u32) -> Option<&[u8]> {
        self.all(field).pop()
    }

    /// Every text of a field.
    pub fn texts(&self, field: u32) -> Vec<String> {
        self.all(field).into_iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    /// Every group of a field.
    pub fn groups(&self, field: u32) -> Vec<&Fields> {
        let groups = self.0.iter().filter_map(|(n, value)| match value {
            Value::Group(inner) if *n == field => Some(inner),
            _ => None,
        });
        groups.collect()
    }
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Result<u64, String> {
    let mut n = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.get(*at).ok_or("a number beyond the end")?;
        *at += 1;
        n |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok(n);
        }
    }
    Err("a number without an end".to_owned())
}
