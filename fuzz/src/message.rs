//! Random messages of any type, out of values that mean something to a store.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

/// How deep messages may lie in each other, so that transactions do.
const MAX_DEPTH: usize = 5;

/// How many values a list has at most.
const MAX_LENGTH: usize = 3;

const KEYS: [&[u8]; 8] = [
    b"", b"\0", b"a", b"b", b"lock/", b"lock/1", b"lock0", b"\xff",
];

const NAMES: [&str; 6] = ["", "root", "alice", "reader", "lock", "\u{0}"];

const NUMBERS: [i64; 12] = [0, 1, 2, 3, 4, 5, 8, 60, 1000, -1, i64::MAX, i64::MIN];

/// A message of a type.
pub(crate) fn message(
    u: &mut Unstructured<'_>,
    descriptor: &MessageDescriptor,
) -> Result<DynamicMessage> {
    message_of_depth(u, descriptor, 0)
}

/// Makes one field of a message, or of one in it, another than it was.
pub(crate) fn alter(u: &mut Unstructured<'_>, message: &mut DynamicMessage) -> Result<()> {
    let descriptor = ReflectMessage::descriptor(message);
    let known: Vec<FieldDescriptor> = descriptor.fields().collect();
    let set: Vec<FieldDescriptor> = known
        .iter()
        .filter(|it| message.has_field(it))
        .cloned()
        .collect();
    let field = match set.is_empty() || u.ratio(1, 4)? {
        true if known.is_empty() => return Ok(()),
        true => u.choose(&known)?,
        false => u.choose(&set)?,
    };
    match message.get_field_mut(field) {
        Value::List(list) => alter_list(u, field, list),
        Value::Message(inner) if set.contains(field) && u.ratio(7, 8)? => alter(u, inner),
        present => {
            *present = match (&*present, u.int_in_range(0..=3)?) {
                (Value::I64(number), 1) => Value::I64(number.wrapping_add(1)),
                (Value::I64(number), 2) => Value::I64(number.wrapping_sub(1)),
                (Value::U64(number), 1) => Value::U64(number.wrapping_add(1)),
                (_, 0) => Value::default_value_for_field(field),
                _ => value(u, field, 0)?,
            };
            Ok(())
        }
    }
}

fn alter_list(
    u: &mut Unstructured<'_>,
    field: &FieldDescriptor,
    list: &mut Vec<Value>,
) -> Result<()> {
    match u.int_in_range(0..=5)? {
        0 if !list.is_empty() => {
            let gone = u.choose_index(list.len())?;
            list.remove(gone);
        }
        1 if !list.is_empty() => {
            let doubled = list[u.choose_index(list.len())?].clone();
            list.push(doubled);
        }
        2 if list.len() > 1 => {
            let (one, other) = (u.choose_index(list.len())?, u.choose_index(list.len())?);
            list.swap(one, other);
        }
        3 => list.push(value(u, field, 0)?),
        _ if !list.is_empty() => {
            let at = u.choose_index(list.len())?;
            match &mut list[at] {
                Value::Message(inner) => alter(u, inner)?,
                other => *other = value(u, field, 0)?,
            }
        }
        _ => {}
    }
    Ok(())
}

fn message_of_depth(
    u: &mut Unstructured<'_>,
    descriptor: &MessageDescriptor,
    depth: usize,
) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        // Most fields that are not asked for are better left out: they make requests refused.
        let is_first = field.number() == 1;
        if depth > MAX_DEPTH || !(u.ratio(1, 3)? || is_first && u.ratio(2, 3)?) {
            continue;
        }
        let value = if field.is_list() {
            let length = u.int_in_range(0..=MAX_LENGTH)?;
            let values = (0..length).map(|_| value(u, &field, depth));
            Value::List(values.collect::<Result<_>>()?)
        } else {
            value(u, &field, depth)?
        };
        message.set_field(&field, value);
    }
    Ok(message)
}

fn value(u: &mut Unstructured<'_>, field: &FieldDescriptor, depth: usize) -> Result<Value> {
    Ok(match field.kind() {
        Kind::Bool => Value::Bool(u.arbitrary()?),
        Kind::Bytes => Value::Bytes(bytes(u)?),
        Kind::Enum(_) => Value::EnumNumber(u.int_in_range(-1..=5)?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(u)? as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(u)?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(u)? as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(u)? as u64),
        Kind::String => Value::String((*u.choose(&NAMES)?).to_owned()),
        Kind::Message(inner) => Value::Message(message_of_depth(u, &inner, depth + 1)?),
        Kind::Double => Value::F64(u.arbitrary()?),
        Kind::Float => Value::F32(u.arbitrary()?),
    })
}

fn number(u: &mut Unstructured<'_>) -> Result<i64> {
    if u.ratio(7, 8)? {
        Ok(*u.choose(&NUMBERS)?)
    } else {
        u.arbitrary()
    }
}

fn bytes(u: &mut Unstructured<'_>) -> Result<Bytes> {
    if u.ratio(7, 8)? {
        return Ok(Bytes::from_static(u.choose(&KEYS)?));
    }
    let length = u.int_in_range(0..=16)?;
    Ok(u.bytes(length)?.to_vec().into())
}
