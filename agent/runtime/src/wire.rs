//! The byte encoding shared by plans and messages: little-endian numbers, strings and lists with a
//! 32-bit count in front. Every count is checked against what is left before anything is allocated,
//! so hostile input costs at most its own size. Nothing here knows what the bytes mean.

use thiserror::Error;

/// Why bytes are not a plan or a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ended inside a value.
    #[error("the message is cut short")]
    Truncated,
    /// Bytes are left behind the last value.
    #[error("the message has {0} bytes too many")]
    Trailing(usize),
    /// A count or length exceeds its bound.
    #[error("a length in the message exceeds its bound")]
    TooLong,
    /// A string is not UTF-8 or contains a NUL.
    #[error("a string in the message is not text")]
    NotText,
    /// A number does not name any known variant of `what`.
    #[error("unknown {what} {value} in the message")]
    Unknown { what: &'static str, value: u64 },
    /// The sender speaks another version.
    #[error("version {found} is not supported (this side speaks {ours})")]
    Version { found: u32, ours: u32 },
    /// Values that are right alone contradict each other.
    #[error("the message contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// A value with a fixed byte encoding.
pub(crate) trait Wire: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// A cursor over received bytes.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }

    /// A count of things that take at least one byte each.
    fn count(&mut self) -> Result<usize, WireError> {
        let count = usize::try_from(u32::get(self)?).map_err(|_| WireError::TooLong)?;
        if count > self.rest.len() {
            Err(WireError::TooLong)
        } else {
            Ok(count)
        }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing(self.rest.len()))
        }
    }
}

/// Encodes the length of something already bounded by the caller; an absurd one is written as
/// the largest count, which no decoder accepts.
fn put_count(count: usize, out: &mut Vec<u8>) {
    u32::try_from(count).unwrap_or(u32::MAX).put(out);
}

macro_rules! wire_number {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
                Ok(Self::from_le_bytes(input.array()?))
            }
        }
    )*};
}
wire_number!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::Unknown {
                what: "truth value",
                value: value.into(),
            }),
        }
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = input.count()?;
        let bytes = input.take(length)?;
        // Every string of a plan ends up in a C string or a file of ours: a NUL would cut it.
        if bytes.contains(&0) {
            return Err(WireError::NotText);
        }
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| WireError::NotText)
    }
}

/// Raw bytes (BPF programs, typed input): a type of its own, so that they are copied, not looped over.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Wire for Blob {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let length = input.count()?;
        Ok(Self(input.take(length)?.to_vec()))
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        input.array()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_count(self.len(), out);
        for item in self {
            item.put(out);
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = input.count()?;
        // No reservation by the claimed count: an item in memory can be far larger than its bytes.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::get(input)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        if bool::get(input)? {
            Ok(Some(T::get(input)?))
        } else {
            Ok(None)
        }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::get(input)?, B::get(input)?))
    }
}

/// Encodes a struct as its fields in the order given; forgetting one does not compile.
macro_rules! wire_struct {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $( $crate::wire::Wire::put($field, out); )*
            }
            fn get(input: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::WireError> {
                Ok(Self { $( $field: $crate::wire::Wire::get(input)? ),* })
            }
        }
    };
}
pub(crate) use wire_struct;

/// Encodes an enum without data as its number.
macro_rules! wire_enum {
    ($name:ident as $number:ty { $($variant:ident = $value:literal),* $(,)? }) => {
        impl $name {
            /// The number that stands for this variant in messages.
            pub fn number(self) -> $number {
                match self { $( Self::$variant => $value ),* }
            }
            /// The variant with this number.
            pub fn from_number(number: $number) -> Option<Self> {
                match number { $( $value => Some(Self::$variant), )* _ => None }
            }
        }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::Wire::put(&self.number(), out);
            }
            fn get(input: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::WireError> {
                let number = <$number as $crate::wire::Wire>::get(input)?;
                Self::from_number(number).ok_or($crate::wire::WireError::Unknown {
                    what: stringify!($name),
                    value: number.into(),
                })
            }
        }
    };
}
pub(crate) use wire_enum;
