//! Types of the component model as plain values, so that what a component offers and what the contract wants can be compared
//! and shown side by side.

use std::fmt;

use wasmtime::component::types::{ComponentFunc, Type};
use wit_parser::{Resolve, TypeDefKind, TypeId};

/// A type by its structure. Names of types do not count, only those of fields and cases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A type without parts.
    Plain(&'static str),
    /// `list<…>`, `option<…>` and `tuple<…>`.
    Generic(&'static str, Vec<Shape>),
    /// `result<…, …>`.
    Result(Option<Box<Shape>>, Option<Box<Shape>>),
    /// Fields, in order.
    Record(Vec<(String, Shape)>),
    /// Cases, in order; `enum`s are variants whose cases hold nothing.
    Variant(Vec<(String, Option<Shape>)>),
    /// Flags, in order.
    Flags(Vec<String>),
    /// What the contract does not use.
    Foreign(&'static str),
}

/// A function's type.
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    params: Vec<(String, Shape)>,
    result: Option<Shape>,
    is_async: bool,
}

impl PartialEq for Signature {
    /// The names of parameters mean nothing to a caller.
    fn eq(&self, other: &Self) -> bool {
        self.is_async == other.is_async
            && self.result == other.result
            && self.params.iter().map(|(_, shape)| shape).eq(other.params.iter().map(|(_, shape)| shape))
    }
}

impl Signature {
    /// What a component has.
    pub(crate) fn offered(func: &ComponentFunc) -> Self {
        Self {
            params: func.params().map(|(name, ty)| (name.to_owned(), Shape::offered(&ty))).collect(),
            result: func.results().next().map(|ty| Shape::offered(&ty)),
            is_async: func.async_(),
        }
    }

    /// What the contract says.
    pub(crate) fn wanted(resolve: &Resolve, func: &wit_parser::Function) -> Self {
        Self {
            params: func.params.iter().map(|p| (p.name.clone(), Shape::wanted(resolve, &p.ty))).collect(),
            result: func.result.as_ref().map(|ty| Shape::wanted(resolve, ty)),
            is_async: matches!(
                func.kind,
                wit_parser::FunctionKind::AsyncFreestanding
                    | wit_parser::FunctionKind::AsyncMethod(_)
                    | wit_parser::FunctionKind::AsyncStatic(_)
            ),
        }
    }
}

impl Shape {
    fn offered(ty: &Type) -> Self {
        match ty {
            Type::Bool => Self::Plain("bool"),
            Type::S8 => Self::Plain("s8"),
            Type::U8 => Self::Plain("u8"),
            Type::S16 => Self::Plain("s16"),
            Type::U16 => Self::Plain("u16"),
            Type::S32 => Self::Plain("s32"),
            Type::U32 => Self::Plain("u32"),
            Type::S64 => Self::Plain("s64"),
            Type::U64 => Self::Plain("u64"),
            Type::Float32 => Self::Plain("f32"),
            Type::Float64 => Self::Plain("f64"),
            Type::Char => Self::Plain("char"),
            Type::String => Self::Plain("string"),
            Type::List(list) => Self::Generic("list", vec![Self::offered(&list.ty())]),
            Type::Option(option) => Self::Generic("option", vec![Self::offered(&option.ty())]),
            Type::Tuple(tuple) => Self::Generic("tuple", tuple.types().map(|ty| Self::offered(&ty)).collect()),
            Type::Result(result) => Self::Result(
                result.ok().map(|ty| Box::new(Self::offered(&ty))),
                result.err().map(|ty| Box::new(Self::offered(&ty))),
            ),
            Type::Record(record) => {
                Self::Record(record.fields().map(|f| (f.name.to_owned(), Self::offered(&f.ty))).collect())
            }
            Type::Variant(variant) => {
                Self::Variant(variant.cases().map(|c| (c.name.to_owned(), c.ty.as_ref().map(Self::offered))).collect())
            }
            Type::Enum(cases) => Self::Variant(cases.names().map(|name| (name.to_owned(), None)).collect()),
            Type::Flags(flags) => Self::Flags(flags.names().map(str::to_owned).collect()),
            Type::Own(_) | Type::Borrow(_) => Self::Foreign("a resource"),
            Type::Future(_) => Self::Foreign("a future"),
            Type::Stream(_) => Self::Foreign("a stream"),
            Type::ErrorContext => Self::Foreign("an error-context"),
            Type::Map(_) => Self::Foreign("a map"),
            Type::FixedLengthList(_) => Self::Foreign("a list of fixed length"),
        }
    }

    fn wanted(resolve: &Resolve, ty: &wit_parser::Type) -> Self {
        use wit_parser::Type as T;
        match ty {
            T::Bool => Self::Plain("bool"),
            T::S8 => Self::Plain("s8"),
            T::U8 => Self::Plain("u8"),
            T::S16 => Self::Plain("s16"),
            T::U16 => Self::Plain("u16"),
            T::S32 => Self::Plain("s32"),
            T::U32 => Self::Plain("u32"),
            T::S64 => Self::Plain("s64"),
            T::U64 => Self::Plain("u64"),
            T::F32 => Self::Plain("f32"),
            T::F64 => Self::Plain("f64"),
            T::Char => Self::Plain("char"),
            T::String => Self::Plain("string"),
            T::ErrorContext => Self::Foreign("an error-context"),
            T::Id(id) => Self::wanted_def(resolve, *id),
        }
    }

    fn wanted_def(resolve: &Resolve, id: TypeId) -> Self {
        let of = |ty: &wit_parser::Type| Self::wanted(resolve, ty);
        match &resolve.types[id].kind {
            TypeDefKind::Type(ty) => of(ty),
            TypeDefKind::List(ty) => Self::Generic("list", vec![of(ty)]),
            TypeDefKind::Option(ty) => Self::Generic("option", vec![of(ty)]),
            TypeDefKind::Tuple(tuple) => Self::Generic("tuple", tuple.types.iter().map(of).collect()),
            TypeDefKind::Result(result) => Self::Result(
                result.ok.as_ref().map(|ty| Box::new(of(ty))),
                result.err.as_ref().map(|ty| Box::new(of(ty))),
            ),
            TypeDefKind::Record(record) => {
                Self::Record(record.fields.iter().map(|f| (f.name.clone(), of(&f.ty))).collect())
            }
            TypeDefKind::Variant(variant) => {
                Self::Variant(variant.cases.iter().map(|c| (c.name.clone(), c.ty.as_ref().map(of))).collect())
            }
            TypeDefKind::Enum(cases) => Self::Variant(cases.cases.iter().map(|c| (c.name.clone(), None)).collect()),
            TypeDefKind::Flags(flags) => Self::Flags(flags.flags.iter().map(|f| f.name.clone()).collect()),
            _ => Self::Foreign("a type that this runtime does not use"),
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    mut each: impl FnMut(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        each(f, item)?;
    }
    Ok(())
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) | Self::Foreign(name) => f.write_str(name),
            Self::Generic(name, parts) => {
                write!(f, "{name}<")?;
                separated(f, parts, |f, part| part.fmt(f))?;
                f.write_str(">")
            }
            Self::Result(ok, err) => match (ok, err) {
                (None, None) => f.write_str("result"),
                (Some(ok), None) => write!(f, "result<{ok}>"),
                (None, Some(err)) => write!(f, "result<_, {err}>"),
                (Some(ok), Some(err)) => write!(f, "result<{ok}, {err}>"),
            },
            Self::Record(fields) => {
                f.write_str("record { ")?;
                separated(f, fields, |f, (name, shape)| write!(f, "{name}: {shape}"))?;
                f.write_str(" }")
            }
            Self::Variant(cases) => {
                f.write_str(if cases.iter().all(|(_, held)| held.is_none()) { "enum { " } else { "variant { " })?;
                separated(f, cases, |f, (name, held)| match held {
                    Some(held) => write!(f, "{name}({held})"),
                    None => f.write_str(name),
                })?;
                f.write_str(" }")
            }
            Self::Flags(names) => {
                f.write_str("flags { ")?;
                separated(f, names, |f, name| f.write_str(name))?;
                f.write_str(" }")
            }
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_async { "async func(" } else { "func(" })?;
        separated(f, &self.params, |f, (name, shape)| write!(f, "{name}: {shape}"))?;
        f.write_str(")")?;
        match &self.result {
            Some(shape) => write!(f, " -> {shape}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_read_as_in_wit_and_ignore_the_names_of_parameters() {
        let shape = Shape::Record(vec![
            ("epoch".into(), Shape::Plain("u64")),
            ("cause".into(), Shape::Variant(vec![("election".into(), None), ("swap".into(), None)])),
        ]);
        let result = Some(Shape::Result(None, Some(Box::new(Shape::Plain("string")))));
        let a = Signature { params: vec![("l".into(), shape.clone())], result: result.clone(), is_async: false };
        let b = Signature { params: vec![("leadership".into(), shape)], result, is_async: false };
        assert_eq!(a, b);
        assert_eq!(
            b.to_string(),
            "func(leadership: record { epoch: u64, cause: enum { election, swap } }) -> result<_, string>"
        );
    }
}
