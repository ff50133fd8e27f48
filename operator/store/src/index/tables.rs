//! The tables within one transaction, and the counting of who uses which data.
//!
//! Comes in: rows to put, rows to let go. Goes out: the same tables, and at the end the files that nothing uses.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::records::{Data, Object, Slice, from_row, to_row};
use super::{DATA, IndexError, META, OBJECTS, PARTS, UPLOADS};

/// The tables of a transaction that writes.
pub struct Tables<'t> {
    pub(crate) objects: Table<'t, &'static [u8], &'static [u8]>,
    pub(crate) data: Table<'t, u64, &'static [u8]>,
    pub(crate) uploads: Table<'t, (&'static [u8], u64), &'static [u8]>,
    pub(crate) parts: Table<'t, (u64, u16), &'static [u8]>,
    meta: Table<'t, &'static str, u64>,
    gone: Vec<u64>,
    bytes: i64,
}

/// What a transaction comes to.
pub(crate) struct Done {
    pub gone: Vec<u64>,
    pub objects: u64,
    pub bytes: u64,
}

impl std::fmt::Debug for Tables<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Tables").field("gone", &self.gone).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl<'t> Tables<'t> {
    pub(crate) fn open(transaction: &'t WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            objects: transaction.open_table(OBJECTS)?,
            data: transaction.open_table(DATA)?,
            uploads: transaction.open_table(UPLOADS)?,
            parts: transaction.open_table(PARTS)?,
            meta: transaction.open_table(META)?,
            gone: Vec::new(),
            bytes: 0,
        })
    }

    pub(crate) fn finish(mut self) -> Result<Done, IndexError> {
        let before = self.meta.get("bytes")?.map_or(0, |bytes| bytes.value());
        let bytes = before.saturating_add_signed(self.bytes);
        if bytes != before {
            self.meta.insert("bytes", bytes)?;
        }
        Ok(Done { gone: self.gone, objects: self.objects.len()?, bytes })
    }

    /// The object of a key.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn object(&self, key: &str) -> Result<Option<Object>, IndexError> {
        self.objects.get(key.as_bytes())?.map(|row| from_row(row.value())).transpose()
    }

    /// Puts an object in the place of what the key had, whose data is let go.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn put_object(&mut self, key: &str, object: &Object) -> Result<(), IndexError> {
        let old = self.objects.insert(key.as_bytes(), to_row(object)?.as_slice())?.map(|row| from_row(row.value()));
        self.bytes = self.bytes.saturating_add_unsigned(object.size);
        old.transpose()?.map_or(Ok(()), |old: Object| self.forget(&old))
    }

    /// Removes an object, if there is one, and lets its data go.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn remove_object(&mut self, key: &str) -> Result<(), IndexError> {
        let old = self.objects.remove(key.as_bytes())?.map(|row| from_row(row.value()));
        old.transpose()?.map_or(Ok(()), |old: Object| self.forget(&old))
    }

    fn forget(&mut self, old: &Object) -> Result<(), IndexError> {
        self.bytes = self.bytes.saturating_sub_unsigned(old.size);
        self.release(old.data)
    }

    /// A new row of data, with one user.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn put_data(&mut self, number: u64, data: &Data) -> Result<(), IndexError> {
        self.data.insert(number, data.pack(1).as_slice())?;
        Ok(())
    }

    /// A row of data and how many use it.
    ///
    /// # Errors
    /// When there is none, or the table cannot be read.
    pub fn data(&self, number: u64) -> Result<(u32, Data), IndexError> {
        let lost = || IndexError::Damaged(format!("the row of data {number:x} is missing"));
        Data::unpack(self.data.get(number)?.ok_or_else(lost)?.value())
    }

    /// One more user of a row of data.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn hold(&mut self, number: u64) -> Result<(), IndexError> {
        if number == 0 {
            return Ok(());
        }
        let (users, data) = self.data(number)?;
        self.data.insert(number, data.pack(users.saturating_add(1)).as_slice())?;
        Ok(())
    }

    /// One user less of a row of data. Without users it goes, and so do the files that only it used.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn release(&mut self, number: u64) -> Result<(), IndexError> {
        if number == 0 {
            return Ok(());
        }
        let (users, data) = self.data(number)?;
        if users > 1 {
            self.data.insert(number, data.pack(users - 1).as_slice())?;
            return Ok(());
        }
        self.data.remove(number)?;
        match data {
            Data::Inline(_) => {}
            Data::File(_) => self.gone.push(number),
            // A slice is of a file's row, never of other slices, so this goes one step deep.
            Data::Slices(slices) => slices.iter().try_for_each(|slice| self.release(slice.file))?,
        }
        Ok(())
    }

    /// Takes a row of data apart into slices of files. Its user becomes a user of each file; with others left, the
    /// row stays for them.
    ///
    /// # Errors
    /// When the tables cannot be written, or the row holds its bytes itself.
    pub fn dissolve(&mut self, number: u64) -> Result<Vec<Slice>, IndexError> {
        let (users, data) = self.data(number)?;
        match data {
            Data::File(length) => Ok(vec![Slice { file: number, offset: 0, length }]),
            Data::Slices(slices) if users == 1 => {
                self.data.remove(number)?;
                Ok(slices)
            }
            Data::Slices(slices) => {
                slices.iter().try_for_each(|slice| self.hold(slice.file))?;
                self.data.insert(number, Data::Slices(slices.clone()).pack(users - 1).as_slice())?;
                Ok(slices)
            }
            Data::Inline(_) => Err(IndexError::Damaged(format!("the part {number:x} is in the index"))),
        }
    }
}
