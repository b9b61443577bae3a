//! Who asks.

use tonic::{Request, metadata::MetadataMap};

use crate::transport::tls::CommonName;

/// Where a token is looked for: as clients of gRPC send it, else as those of the JSON gateway do.
const TOKEN_FIELDS: [&str; 2] = ["token", "authorization"];

/// What a gateway leaves in the requests that it passes on.
const GATEWAY_FIELD: &str = "grpcgateway-accept";

/// What a request tells of who sent it. Whether that is true is for
/// [`State::permit`](crate::store::shared::State::permit) to find out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    pub(crate) token: Option<String>,
    pub(crate) common_name: Option<String>,
}

impl Caller {
    /// Parts a request into who sends it and what is asked.
    pub(crate) fn part<T>(request: Request<T>) -> (Self, T) {
        let metadata = request.metadata();
        let caller = Self {
            token: token(metadata),
            // Whoever passes a request on lends his certificate to nobody.
            common_name: request
                .extensions()
                .get()
                .filter(|_| !metadata.contains_key(GATEWAY_FIELD))
                .map(|CommonName(name)| name.clone()),
        };
        (caller, request.into_inner())
    }
}

/// A token that is no text is none that was given, and so as good as an empty one.
fn token(metadata: &MetadataMap) -> Option<String> {
    let value = TOKEN_FIELDS.iter().find_map(|&it| metadata.get(it))?;
    Some(value.to_str().unwrap_or_default().to_owned())
}
