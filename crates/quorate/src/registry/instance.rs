//! What is told of one instance of a service.

use serde_json::{Map, Value as Json};

/// One instance of a service: where it is reached, and what else its clients should know.
///
/// # Examples
///
/// ```
/// use quorate::Instance;
///
/// let instance = Instance::new("10.0.0.7:8080").meta("zone", "b").weight(2);
/// assert_eq!(instance.address, "10.0.0.7:8080");
/// assert_eq!(instance.metadata("zone").as_deref(), Some("b"));
/// assert!(!instance.draining);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Where it is reached, such as `host:port`.
    pub address: String,
    /// How much of the load it should get in proportion to others; 0 for none.
    pub weight: u32,
    /// Whether it should get nothing new, since it is about to leave.
    pub draining: bool,
    /// A JSON document, which takes far less room than the tree of it.
    metadata: Box<str>,
}

impl Instance {
    /// An instance that is reached at this address, such as `host:port`; with weight 1, without
    /// metadata, and not draining.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            metadata: NO_METADATA.into(),
            weight: 1,
            draining: false,
        }
    }

    /// Adds a name and its value to the metadata, or replaces it.
    #[must_use]
    pub fn meta(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut metadata = match self.metadata_json() {
            Json::Object(metadata) => metadata,
            _ => Map::new(),
        };
        metadata.insert(name.into(), Json::String(value.into()));
        self.with_metadata_json(&Json::Object(metadata))
    }

    /// Replaces the metadata by what `metadata` is in JSON: an object, unless the service's
    /// [layout](crate::Layout) can hold anything.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a value that JSON cannot express.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> quorate::Result<()> {
    /// use quorate::Instance;
    ///
    /// let limits = std::collections::BTreeMap::from([("rps".to_owned(), 100)]);
    /// let instance = Instance::new("10.0.0.7:8080").with_metadata(&limits)?;
    /// assert_eq!(instance.metadata_as::<std::collections::BTreeMap<String, u32>>()?, limits);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "serde")]
    pub fn with_metadata<T: serde::Serialize + ?Sized>(self, metadata: &T) -> crate::Result<Self> {
        let json = serde_json::to_value(metadata).map_err(|error| {
            let message = format!("the metadata of {}: {error}", self.address);
            crate::Error::new(crate::ErrorKind::InvalidArgument, message).because(error)
        })?;
        Ok(self.with_metadata_json(&json))
    }

    /// Sets how much of the load it should get in proportion to others; 0 for none.
    #[must_use]
    pub fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Sets whether it should get nothing new, since it is about to leave.
    #[must_use]
    pub fn draining(self, draining: bool) -> Self {
        Self { draining, ..self }
    }
}

impl Instance {
    /// The text that the metadata have under a name, if that is a text.
    pub fn metadata(&self, name: &str) -> Option<String> {
        match self.metadata_json().get_mut(name).map(Json::take) {
            Some(Json::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The metadata as a JSON document: `{}` if there are none.
    pub fn metadata_text(&self) -> &str {
        &self.metadata
    }

    /// The metadata as a type.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](crate::ErrorKind::InvalidData) if they are not such.
    #[cfg(feature = "serde")]
    pub fn metadata_as<T: serde::de::DeserializeOwned>(&self) -> crate::Result<T> {
        serde_json::from_str(&self.metadata).map_err(|error| {
            let message = format!("the metadata of {}: {error}", self.address);
            crate::Error::new(crate::ErrorKind::InvalidData, message).because(error)
        })
    }

    pub(super) fn metadata_json(&self) -> Json {
        serde_json::from_str(&self.metadata).unwrap_or_default()
    }

    pub(super) fn with_metadata_json(self, json: &Json) -> Self {
        Self {
            metadata: json.to_string().into(),
            ..self
        }
    }

    /// Whether there is nothing but the address.
    pub(super) fn is_bare(&self) -> bool {
        !self.has_metadata() && self.weight == 1 && !self.draining
    }

    pub(super) fn has_metadata(&self) -> bool {
        &*self.metadata != NO_METADATA
    }
}

const NO_METADATA: &str = "{}";
