//! Images: which digest a tag stands for, asked of its registry.
//!
//! Comes in: the name of an image, and the Secrets that its pod pulls with. Goes out: the digest, or why there is none, in
//! words for a status. Users write the hosts, so who is asked is guarded ([`guard`]); a run waits for the answer, so all of it
//! has one time limit, the same question of many is asked once, and a registry that is away is left alone for a while.

mod challenge;
mod credentials;
mod guard;
mod registry;
#[cfg(test)]
mod tests;

use cultivar_core::domain::{Image, text};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OnceCell, Semaphore};

use self::credentials::Credential;
pub use self::credentials::Credentials;
use self::guard::Guard;
use self::registry::{Fault, Place};
use crate::settings::ImageSettings;

/// How long the answer to one question may take for who waits for it, from its beginning to its end.
pub const LIMIT: Duration = Duration::from_secs(10);
/// How much of that is a registry's.
const ASKING: Duration = Duration::from_secs(8);
/// How long a registry that nobody answers at is not asked again: a run that waits for it waits in vain.
const AWAY: Duration = Duration::from_secs(30);
/// Before a registry is asked once more that has no time, or could not be reached for a moment.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions of one namespace that are asked side by side: one that names slow registries holds up itself.
const SIDE_BY_SIDE: usize = 16;
/// Where the images of Docker's registry are asked for.
const DOCKER: (&str, &str) = ("docker.io", "https://registry-1.docker.io");
/// Longest reason that is told.
const MAX_WORDS: usize = 300;

/// The registries, as the operator asks them.
pub struct Images {
    settings: ImageSettings,
    asking: Duration,
    // Made when the first is asked: roots of trust are large.
    guard: OnceLock<Result<Guard, String>>,
    // Questions under way.
    asked: Mutex<HashMap<Question, Arc<Answer>>>,
    // By host: when nobody answered there.
    away: Mutex<HashMap<String, Instant>>,
    // By namespace.
    rooms: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// What is asked, and as whom: what a registry shows to one it may not show to another.
type Question = (Image, Option<Credential>);

type Answer = OnceCell<Result<String, String>>;

impl Images {
    /// Asks as the settings say.
    pub fn new(settings: ImageSettings) -> Self {
        Self {
            settings,
            asking: ASKING,
            guard: OnceLock::new(),
            asked: Mutex::default(),
            away: Mutex::default(),
            rooms: Mutex::default(),
        }
    }

    /// The digest of an image that a tag names.
    ///
    /// # Errors
    /// There is none, in words. Within [`LIMIT`] there is one or the other, if the caller sees to it.
    pub async fn digest(&self, namespace: &str, image: &str, credentials: &Credentials) -> Result<String, String> {
        let image = Image::parse(image)?;
        let place = self.place(&image)?;
        let as_whom =
            if self.settings.mirrors.contains_key(&image.registry) { place.host() } else { image.registry.clone() };
        let credential = credentials.of(&as_whom, &place.repository).cloned();
        let room = self.room_of(namespace);
        // Closed never: it is held here.
        let _place = room.acquire().await.map_err(|error| error.to_string())?;
        let answer = self.under_way((image.clone(), credential.clone()));
        // Whoever asks first may be broken off: then the next one asks.
        let answer = answer.get_or_init(|| self.ask(&place, &image, credential.as_ref())).await;
        answer.clone().map_err(|why| text::short(why, MAX_WORDS))
    }

    fn room_of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut rooms = lock(&self.rooms);
        rooms.retain(|_, room| Arc::strong_count(room) > 1);
        Arc::clone(rooms.entry(namespace.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(SIDE_BY_SIDE))))
    }

    // The mirror's address, where there is one, else the registry's own.
    fn place(&self, image: &Image) -> Result<Place, String> {
        let own = match image.registry.as_str() {
            registry if registry == DOCKER.0 => DOCKER.1.to_owned(),
            registry => format!("https://{registry}"),
        };
        let base = match self.settings.mirrors.get(&image.registry) {
            Some(mirror) => mirror.clone(),
            None => reqwest::Url::parse(&own).map_err(|error| format!("{own} is no address: {error}"))?,
        };
        // A mirror that keeps several registries has each below a path of its own.
        let below = base.path().trim_matches('/');
        let repository =
            if below.is_empty() { image.repository.clone() } else { format!("{below}/{}", image.repository) };
        Ok(Place { base, repository })
    }

    // Those who ask the same at one time are one question. What has been answered is asked anew: a tag that was moved since is
    // seen by whoever begins then.
    fn under_way(&self, question: Question) -> Arc<Answer> {
        let mut asked = lock(&self.asked);
        asked.retain(|_, answer| !answer.initialized() && Arc::strong_count(answer) > 1);
        Arc::clone(asked.entry(question).or_default())
    }

    async fn ask(&self, place: &Place, image: &Image, credential: Option<&Credential>) -> Result<String, String> {
        let guard = self.guard.get_or_init(|| {
            let guard = Guard::new(self.settings.mirrors.values(), LIMIT);
            guard.map_err(|error| format!("no registry can be asked: {}", cultivar_data::reason(&error)))
        });
        let guard = guard.as_ref().map_err(Clone::clone)?;
        let host = place.host();
        if let Some(since) = self.away_since(&host) {
            return Err(format!("{host} did not answer {} seconds ago, and is asked again later", since.as_secs()));
        }
        let begun = Instant::now();
        let asking = async {
            match registry::digest(guard, place, image, credential).await {
                Err(fault) if matches!(fault, Fault::Busy(_)) || fault.is_away() && begun.elapsed() < PAUSE => {
                    tokio::time::sleep(PAUSE).await;
                    registry::digest(guard, place, image, credential).await
                }
                answer => answer,
            }
        };
        let answer = tokio::time::timeout(self.asking, asking).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Fault::Away(format!("{host} did not answer within {:?}", self.asking))));
        if let Err(Fault::Away(why)) = &answer {
            tracing::debug!(%host, %why, "a registry does not answer");
            lock(&self.away).insert(host, Instant::now());
        }
        answer.map_err(Fault::words)
    }

    fn away_since(&self, host: &str) -> Option<Duration> {
        let mut away = lock(&self.away);
        away.retain(|_, since| since.elapsed() < AWAY);
        away.get(host).map(Instant::elapsed)
    }
}

// Nothing that is locked panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
