//! What can be read of damaged dead letters. The damaged file stays, under a name with its date.

use jiff::Timestamp;
use tracing::error;

use super::carve;
use super::dead_letter::{self, DeadLetters, HEADER, MAGIC};
use super::disk::Access;
use super::segment::{SegmentError, guarded};

impl DeadLetters {
    /// Replaces the file by what can be read of it; `damage` is why.
    pub fn salvage(&self, damage: &SegmentError) -> Result<(), SegmentError> {
        guarded(&self.path, || {
            let file = &*self.folder.disk.open(&self.path, Access::Read)?;
            let found = carve::carve(file, MAGIC, HEADER, dead_letter::length, |bytes| {
                dead_letter::decode(bytes).map(|letter| ((letter.queue_id.0, letter.sequence), ()))
            })?;
            let set_aside = carve::set_aside(&self.folder, &self.path, Timestamp::now())?;
            self.create(found.iter().map(|(key, (place, ()))| Ok((*key, place.read(file)?))))?.close()?;
            carve::keep_newest(&self.folder)?;
            error!(error = %damage, kept = found.len(), set_aside = %set_aside.display(), "the dead letters are damaged: what can be read is kept, and may hold some that were deleted");
            Ok(())
        })
    }
}
