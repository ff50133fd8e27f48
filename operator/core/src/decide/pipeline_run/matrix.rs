//! Which members a fan-out has.
//!
//! Comes in: a frozen `matrix` or `count`, and what its references read. Goes out: the coordinates of every member, in
//! the order of their indexes; always the same for the same values.

use cultivar_crds::{MAX_MEMBERS, Matrix};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::refs::{FieldPath, Insert, Names, Scope, equal, resolve};

/// Where a member stands, by axis.
pub type Coordinates = Map<String, Value>;

/// The fan-out of a stage; references of the outer scope kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FanOut {
    /// The combinations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// Or how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<Value>,
    /// How many are there at once that have not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    /// Whether the first failure ends all.
    #[serde(default)]
    pub fail_fast: bool,
    /// The params that the stage gives itself: coordinates do not take their place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given: Vec<String>,
}

impl FanOut {
    /// The fan-out of a stage as it is stored, if it has one.
    #[must_use]
    pub fn of(stage: &Value) -> Option<Self> {
        let read = |key: &str| stage.get(key).filter(|value| !value.is_null()).cloned();
        let (matrix, count) = (read("matrix"), read("count"));
        if matrix.is_none() && count.is_none() {
            return None;
        }
        Some(Self {
            matrix: matrix.and_then(|matrix| Matrix::deserialize(matrix).ok()),
            count,
            max_parallel: read("maxParallel").and_then(|most| u32::deserialize(most).ok()),
            fail_fast: read("failFast").and_then(|fast| fast.as_bool()).unwrap_or(false),
            given: crate::decide::object(stage.get("params")).keys().cloned().collect(),
        })
    }

    /// The coordinates of every member.
    ///
    /// # Errors
    /// A reference that leads nowhere, what is no list or no number, more members than are allowed.
    pub fn members(&self, names: &Names<'_>) -> Result<Vec<Coordinates>, String> {
        match (&self.matrix, &self.count) {
            (Some(matrix), _) => combinations(matrix, names),
            (None, Some(count)) => Ok(vec![Coordinates::new(); size(count, names)?]),
            (None, None) => Ok(Vec::new()),
        }
    }
}

/// A value with its references resolved, for good: data is not escaped.
///
/// # Errors
/// What is wrong with them, in words.
pub(super) fn read(value: &Value, at: &FieldPath, names: &Names<'_>) -> Result<Value, String> {
    // An expression without a name, such as range(5), is of the own scope, whatever it is for.
    let outer = resolve(value, at, Scope::Outer, names, Insert::Escaped);
    outer.and_then(|value| resolve(&value, at, Scope::Own, &Names::new(), Insert::Plain)).map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        crate::domain::text::some_of(&words, 4)
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked right before")]
fn size(count: &Value, names: &Names<'_>) -> Result<usize, String> {
    let count = read(count, &FieldPath::of("count"), names)?;
    // A metric is a float: 4.0 members are four.
    let whole = count.as_f64().filter(|size| size.fract() == 0.0 && *size >= 0.0 && *size <= f64::from(u32::MAX));
    let Some(whole) = whole else { return Err(format!("count: {count} is not a whole number from 0")) };
    within(whole as usize)
}

fn within(size: usize) -> Result<usize, String> {
    if size > MAX_MEMBERS as usize {
        return Err(format!("the fan-out has {size} members, and {MAX_MEMBERS} are allowed: split it into stages"));
    }
    Ok(size)
}

fn combinations(matrix: &Matrix, names: &Names<'_>) -> Result<Vec<Coordinates>, String> {
    let at = FieldPath::of("matrix");
    let mut axes = Vec::new();
    for (axis, values) in &matrix.axes {
        let at = at.key("axes").key(axis);
        match read(values, &at, names)? {
            Value::Array(values) => axes.push((axis.clone(), values)),
            other => return Err(format!("{at}: {} is not a list", shown(&other))),
        }
    }
    let mut all = product(&axes)?;
    let exclude = objects(matrix.exclude.as_ref(), &at.key("exclude"), names)?;
    all.retain(|member| !exclude.iter().any(|left_out| agrees(left_out, member)));
    for extra in objects(matrix.include.as_ref(), &at.key("include"), names)? {
        include(&mut all, &axes, extra);
    }
    within(all.len())?;
    Ok(all)
}

fn product(axes: &[(String, Vec<Value>)]) -> Result<Vec<Coordinates>, String> {
    if axes.is_empty() {
        return Ok(Vec::new());
    }
    // What is excluded counts here: nobody writes a million combinations to leave most of them out.
    within(axes.iter().try_fold(1_usize, |size, (_, values)| size.checked_mul(values.len())).unwrap_or(usize::MAX))?;
    let mut all = vec![Coordinates::new()];
    for (axis, values) in axes {
        all = all
            .into_iter()
            .flat_map(|member| {
                values.iter().map(move |value| {
                    let mut member = member.clone();
                    member.insert(axis.clone(), value.clone());
                    member
                })
            })
            .collect();
    }
    Ok(all)
}

fn agrees(part: &Coordinates, member: &Coordinates) -> bool {
    part.iter().all(|(axis, value)| member.get(axis).is_some_and(|own| equal(own, value)))
}

// As in GitHub's and Tekton's matrices: values are added where nothing has to be changed for them.
fn include(all: &mut Vec<Coordinates>, axes: &[(String, Vec<Value>)], extra: Coordinates) {
    let on_axes: Coordinates = extra
        .iter()
        .filter(|(key, _)| axes.iter().any(|(axis, _)| axis == *key))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let of_matrix = |member: &Coordinates| axes.iter().all(|(axis, _)| member.contains_key(axis));
    let mut added = false;
    for member in all.iter_mut().filter(|member| !axes.is_empty() && of_matrix(member) && agrees(&on_axes, member)) {
        added = true;
        member.extend(extra.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    if !added {
        all.push(extra);
    }
}

fn objects(list: Option<&Value>, at: &FieldPath, names: &Names<'_>) -> Result<Vec<Coordinates>, String> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let list = match read(list, at, names)? {
        Value::Array(list) => list,
        other => return Err(format!("{at}: {} is not a list", shown(&other))),
    };
    let object = |(index, member)| match member {
        Value::Object(map) => Ok(map),
        other => Err(format!("{}: {} is not an object", at.index(index), shown(&other))),
    };
    list.into_iter().enumerate().map(object).collect()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
