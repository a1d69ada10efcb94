use std::sync::{Arc, Mutex};

use redb::{ReadableDatabase as _, TableDefinition};

use super::{Bench, all};
use crate::store::{Embedded, Revision, Store, StoreError};

const HISTORY: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("history");

struct File {
    dir: tempfile::TempDir,
    /// Only one may have it open.
    open: Mutex<Option<Arc<dyn Store>>>,
}

impl File {
    fn entry(&self, revision: Revision, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        *self.open.lock().unwrap() = None;
        let database = redb::Database::open(self.dir.path().join("weir.redb")).unwrap();
        let read = database.begin_read().unwrap().open_table(HISTORY).unwrap();
        let bytes = read.get(revision).unwrap().unwrap().value().to_vec();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(HISTORY).unwrap();
            match change(bytes) {
                Some(bytes) => drop(table.insert(revision, bytes.as_slice()).unwrap()),
                None => drop(table.remove(revision).unwrap()),
            }
        }
        write.commit().unwrap();
    }
}

impl Bench for File {
    fn open(&self) -> Arc<dyn Store> {
        if let Some(store) = &*self.open.lock().unwrap() {
            return store.clone();
        }
        self.anew().unwrap()
    }

    fn anew(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut open = self.open.lock().unwrap();
        *open = None;
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&self.dir.path().join("weir.redb"))?);
        *open = Some(store.clone());
        Ok(store)
    }

    fn damage(&self, revision: Revision) {
        self.entry(revision, |mut bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            Some(bytes)
        });
    }

    fn remove(&self, revision: Revision) {
        self.entry(revision, |_| None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_its_promises() {
    all(|| File { dir: tempfile::tempdir().unwrap(), open: Mutex::new(None) });
}
