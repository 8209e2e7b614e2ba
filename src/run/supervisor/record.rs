//! What a run needs of its record: that it keeps events, and that other runs are kept from admitting tasks meanwhile.

use crate::run::admission::Holding;
use crate::run::event::Recorded;
use crate::run::store::StoreError;

/// What other runs have done since they were last asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What they hold, if that has changed.
    pub hold: Option<Vec<Holding>>,
    /// What they may have made: paths that attempts of theirs have written.
    pub made: Vec<String>,
}

/// Where a run's events are kept.
pub trait Record {
    /// Keeps events, all of them or none; when it returns they survive our death.
    ///
    /// # Errors
    /// Where they cannot be kept.
    fn append(&mut self, events: &[Recorded]) -> Result<(), StoreError>;

    /// Keeps other runs from admitting tasks until the next append or [`Record::let_go`], and returns what they have done
    /// since that was last asked.
    ///
    /// # Errors
    /// Where the record cannot be read or held.
    fn hold(&mut self) -> Result<News, StoreError> {
        Ok(News::default())
    }

    /// Lets other runs admit tasks again.
    ///
    /// # Errors
    /// Where the record cannot be let go.
    fn let_go(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns what other runs have done since that was last asked.
    ///
    /// # Errors
    /// Where the record cannot be read.
    fn others(&mut self) -> Result<News, StoreError> {
        Ok(News::default())
    }
}
