//! Reads protobuf messages field by field (protobuf.dev, "Encoding").

/// The bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Field<'a> {
    /// An integer, a truth value or an enumeration.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The bytes of a text or message.
    ///
    /// # Errors
    /// It is a number.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        if let Field::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed) }
    }

    /// The number of an integer.
    ///
    /// # Errors
    /// It is something else.
    pub fn varint(self) -> Result<u64, Malformed> {
        if let Field::Varint(number) = self { Ok(number) } else { Err(Malformed) }
    }

    /// The number of eight bytes.
    ///
    /// # Errors
    /// It is something else.
    pub fn fixed64(self) -> Result<u64, Malformed> {
        if let Field::Fixed64(number) = self { Ok(number) } else { Err(Malformed) }
    }
}

/// Deepest nesting of groups that are passed over; prost has the same limit.
const DEEPEST_GROUP: u32 = 100;

/// The fields of a message that were not read yet.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Those of a message, from this place of it on.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: usize) -> Fields<'a> {
        Fields { bytes, at }
    }

    /// The place of the next one.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next field and its number. `None`: the message is over.
    ///
    /// # Errors
    /// What comes is no field.
    pub fn next_field(&mut self) -> Result<Option<(u32, Field<'a>)>, Malformed> {
        while self.at < self.bytes.len() {
            let (number, kind) = self.tag()?;
            let field = match kind {
                0 => Field::Varint(self.varint()?),
                1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
                2 => {
                    let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                    Field::Bytes(self.take(len)?)
                }
                3 => {
                    self.skip_group(number, 0)?;
                    continue;
                }
                5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
                _ => return Err(Malformed),
            };
            return Ok(Some((number, field)));
        }
        Ok(None)
    }

    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, (key & 7) as u8)) }
    }

    /// Nearly all have one byte.
    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for i in 0..10 {
            let byte = *self.bytes.get(self.at).ok_or(Malformed)?;
            self.at += 1;
            if i == 9 && byte > 1 {
                return Err(Malformed); // more than 64 bits
            }
            number |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(len).ok_or(Malformed)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// Passes over a group, which no message of ours has.
    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), Malformed> {
        if depth >= DEEPEST_GROUP {
            return Err(Malformed);
        }
        loop {
            let (inner, kind) = self.tag()?;
            match kind {
                0 => drop(self.varint()?),
                1 => drop(self.take(8)?),
                2 => {
                    let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
                    self.take(len)?;
                }
                3 => self.skip_group(inner, depth + 1)?,
                4 if inner == number => return Ok(()),
                5 => drop(self.take(4)?),
                _ => return Err(Malformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Field<'_>)>, Malformed> {
        let mut fields = Fields::new(bytes, 0);
        std::iter::from_fn(|| fields.next_field().transpose()).collect()
    }

    #[test]
    fn fields_of_each_kind() {
        // The examples of protobuf.dev, "Encoding": 150 as field 1; "testing" as field 2.
        assert_eq!(all(&[0x08, 0x96, 0x01]), Ok(vec![(1, Field::Varint(150))]));
        assert_eq!(all(b"\x12\x07testing"), Ok(vec![(2, Field::Bytes(b"testing"))]));
        assert_eq!(all(&[0x0d, 1, 0, 0, 0]), Ok(vec![(1, Field::Fixed32(1))]));
        assert_eq!(all(&[0x09, 1, 0, 0, 0, 0, 0, 0, 0]), Ok(vec![(1, Field::Fixed64(1))]));
        assert_eq!(all(&[0x0b, 0x08, 1, 0x0c, 0x10, 2]), Ok(vec![(2, Field::Varint(2))]), "a group is passed over");
    }

    #[test]
    fn what_is_no_message() {
        let longest = [[0xff; 9].as_slice(), &[2]].concat();
        for bad in [
            &[0x00, 0x01][..],                                             // field 0
            &[0x08],                                                       // no value
            &[0x12, 0x05, b'a'],                                           // shorter than it says
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // 2^63 bytes
            &[0x0b, 0x08, 1],                                              // a group without end
            &[0x0b, 0x14],                                                 // another group's end
            &[0x0c],                                                       // an end without a group
            &[0x0e],                                                       // no such kind
            &[[0x08].as_slice(), &longest].concat(),                       // more than 64 bits
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0],                      // a key beyond 32 bits
            &vec![0x0b; 1_000_000],                                        // groups in groups
        ] {
            assert_eq!(all(bad), Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
