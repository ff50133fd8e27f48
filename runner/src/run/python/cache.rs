//! Installed packages in the run's store, for the next run that asks for the same.
//!
//! An entry is one archive, visible when whole, under the key of what was asked for and named by its own digest: what does
//! not have the digest of its name is not used, and removed. Runs that save the same at once leave two entries, each of
//! them good. What fails here fails no run: then the packages are installed.

use cultivar_data::{DataError, Limits, Mover, Place, Remote, Store, pack, unpack};
use std::path::Path;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Larger entries are not kept.
const MOST: u64 = 4 << 30;
/// All entries of a namespace together; the oldest make room.
const MOST_TOGETHER: u64 = 16 << 30;
/// What one archive may unpack to.
const UNPACKED: u64 = 32 << 30;
/// The program waits while its packages are saved.
const SAVING: Duration = Duration::from_secs(600);

/// The entries of one key.
#[derive(Debug)]
pub struct Cache<'a> {
    store: &'a Store,
    mover: &'a Mover,
    // Of all keys.
    all: String,
    own: String,
}

impl<'a> Cache<'a> {
    /// Of the prefix that the runs of a namespace share.
    pub fn of(store: &'a Store, mover: &'a Mover, prefix: &str, key: &str) -> Self {
        let all = format!("{prefix}/python");
        Self { store, mover, own: format!("{all}/{key}"), all }
    }

    /// Puts what is kept into the new folder `to`. False: there is nothing of use; `problems` say what was of none.
    pub async fn fetch(&self, to: &Path, problems: &mut Vec<String>) -> bool {
        let found = match self.store.objects(&self.own).await {
            Ok(found) => found,
            Err(error) => {
                problems.push(format!("packages that are kept were not looked at: {error}"));
                return false;
            }
        };
        for entry in found {
            let Some(digest) = digest_of_name(&entry.key) else { continue };
            match self.take(&entry.key, &digest, to).await {
                Ok(()) => return true,
                // Made room for others in the meantime.
                Err(DataError::NotFound(_)) => {}
                Err(error) => {
                    if matches!(error, DataError::Corrupt { .. }) {
                        let _ = self.store.delete(&entry.key).await;
                    }
                    problems.push(format!("packages that are kept were not used: {error}"));
                }
            }
        }
        false
    }

    async fn take(&self, key: &str, digest: &str, to: &Path) -> Result<(), DataError> {
        let archive = Place::of(&to.with_extension("archive"))?;
        let place = Place::of(to)?;
        let remote = Remote::Object(self.store.clone(), key.to_owned());
        self.mover.fetch(&remote, archive.part(), Some(digest)).await?;
        let (what, into) = (self.store.uri(key), place.part().to_owned());
        let limits = Limits { bytes: UNPACKED, ..Limits::default() };
        let unpacking = spawn_blocking(move || unpack(archive.part(), &what, &into, limits));
        unpacking.await.map_err(|error| DataError::Invalid(format!("unpacking broke off: {error}")))??;
        place.done()
    }

    /// Keeps what was installed; comes back with why it is not kept.
    pub async fn save(&self, folder: &Path) -> Option<String> {
        let saved = timeout(SAVING, self.put(folder, MOST)).await;
        let why = match saved {
            Ok(Ok(true)) => timeout(SAVING, self.make_room(MOST_TOGETHER)).await.ok()?.err()?.to_string(),
            Ok(Ok(false)) => format!("packed they have more than {} GiB", MOST >> 30),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it took more than {} minutes", SAVING.as_secs() / 60),
        };
        Some(format!("installed packages are not kept for the next run: {why}"))
    }

    async fn put(&self, folder: &Path, most: u64) -> Result<bool, DataError> {
        let archive = Place::of(&folder.with_extension("archive"))?;
        let (from, to) = (folder.to_owned(), archive.part().to_owned());
        let packing = spawn_blocking(move || pack(&from, &to, most));
        let packed = packing.await.map_err(|error| DataError::Invalid(format!("packing broke off: {error}")))??;
        let Some(digest) = packed else { return Ok(false) };
        let key = format!("{}/{}.tar.gz", self.own, digest.trim_start_matches("sha256:"));
        self.mover.upload(self.store, &key, archive.part()).await?;
        Ok(true)
    }

    // The oldest first. That they are all of one age, and in use, is for the bound to prevent.
    async fn make_room(&self, most: u64) -> Result<(), DataError> {
        let mut together = 0;
        for entry in self.store.objects(&self.all).await? {
            together += entry.size;
            if together > most {
                self.store.delete(&entry.key).await?;
            }
        }
        Ok(())
    }
}

fn digest_of_name(key: &str) -> Option<String> {
    let name = key.rsplit('/').next()?.strip_suffix(".tar.gz")?;
    (name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| format!("sha256:{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cultivar_protocol::StoreSpec;

    fn store(root: &Path) -> Store {
        let url = format!("file://{}", root.join("store").display());
        let options = [("cultivar_patience".to_owned(), "300ms".to_owned())].into();
        Store::open(&StoreSpec { url, options, ..StoreSpec::default() }).unwrap()
    }

    #[tokio::test]
    async fn kept_and_found_and_never_half() {
        let root = tempfile::tempdir().unwrap();
        let (store, mover) = (store(root.path()), Mover::default());
        let (folder, to) = (root.path().join("python"), root.path().join("to"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a.py"), "x = 1\n".repeat(1000)).unwrap();
        let cache = Cache::of(&store, &mover, "ns/cache", "k1");
        let mut problems = Vec::new();
        assert!(!cache.fetch(&to, &mut problems).await && problems.is_empty(), "{problems:?}");
        assert_eq!(cache.save(&folder).await, None);
        assert!(cache.fetch(&to, &mut problems).await && problems.is_empty(), "{problems:?}");
        assert_eq!(std::fs::read(to.join("a.py")).unwrap(), std::fs::read(folder.join("a.py")).unwrap());
        std::fs::remove_dir_all(&to).unwrap();
        // Another key has nothing.
        assert!(!Cache::of(&store, &mover, "ns/cache", "k").fetch(&to, &mut problems).await);

        // Torn, and then of the right name but no archive.
        let entry = store.objects("ns/cache/python/k1").await.unwrap().remove(0);
        let bytes = store.get(&entry.key, 1 << 20).await.unwrap();
        store.put(&entry.key, bytes.slice(..bytes.len() / 2)).await.unwrap();
        let digest = cultivar_data::digest_of(b"no archive");
        store.put(&format!("ns/cache/python/k1/{}.tar.gz", &digest[7..]), "no archive").await.unwrap();
        assert!(!cache.fetch(&to, &mut problems).await && !to.exists());
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(store.objects("ns/cache/python").await.unwrap().is_empty(), "what is broken goes");
        let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[tokio::test]
    async fn bounded() {
        let root = tempfile::tempdir().unwrap();
        let (store, mover) = (store(root.path()), Mover::default());
        let folder = root.path().join("python");
        std::fs::create_dir(&folder).unwrap();
        let cache = Cache::of(&store, &mover, "ns/cache", "k1");
        std::fs::write(folder.join("a.py"), "x = 1").unwrap();
        assert!(!cache.put(&folder, 10).await.unwrap(), "larger than is kept");
        assert!(store.objects("ns").await.unwrap().is_empty());
        for key in ["old", "older", "new"] {
            store.put(&format!("ns/cache/python/{key}/x.tar.gz"), vec![0; 100]).await.unwrap();
            let at = std::time::UNIX_EPOCH + Duration::from_secs(if key == "older" { 1000 } else { 2000 });
            let file = root.path().join(format!("store/ns/cache/python/{key}/x.tar.gz"));
            if key != "new" {
                std::fs::File::options().append(true).open(file).unwrap().set_modified(at).unwrap();
            }
        }
        store.put("ns/exp-00000000/artifacts/1/x", vec![0; 1000]).await.unwrap();
        cache.make_room(250).await.unwrap();
        let keys: Vec<String> = store.objects("ns").await.unwrap().into_iter().map(|entry| entry.key).collect();
        assert!(keys.len() == 3 && !keys.iter().any(|key| key.contains("older")), "{keys:?}");
    }

    #[tokio::test]
    async fn a_store_that_fails_is_a_problem_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        let (store, mover) = (store(root.path()), Mover::default());
        std::fs::create_dir(root.path().join("python")).unwrap();
        // Where a folder is asked for there is a file.
        std::fs::create_dir(root.path().join("store/ns")).unwrap();
        std::fs::write(root.path().join("store/ns/cache"), "").unwrap();
        let cache = Cache::of(&store, &mover, "ns/cache", "k1");
        assert!(!cache.fetch(&root.path().join("to"), &mut Vec::new()).await);
        assert!(cache.save(&root.path().join("python")).await.unwrap().contains("are not kept"));
    }
}
