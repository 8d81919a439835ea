//! The life of a partition: its states, and the calls that each of them permits (TLFS 2.0A §5.2.5 and §5.4).
//!
//! ```text
//! create ──► Uninitialized ──► Active ──► Finalizing ──► Finalized ──► (deleted)
//!                 └───────────────────────────────────────────────────────┘
//! ```
//! The specification forbids property calls on an uninitialized partition, but Linux lets a VMM make them between
//! creation and initialization, and synthetic features can be set at no other time (root-abi §14.19). So they
//! are permitted here.

use crate::ensure;
use tlfs::call::CallCode;
use tlfs::partition::PropertyCode;
use tlfs::status::HvStatus;

/// The state of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Created: it has a pool and properties, and nothing runs.
    Uninitialized,
    /// Initialized: everything but deletion is possible. The root is always in this state.
    Active,
    /// Being torn down. The teardown may span several calls, each of which continues it.
    Finalizing,
    /// Nothing is left but the pool.
    Finalized,
}

impl State {
    /// Checks that `call` may have a partition in this state as its target.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn permit(self, call: CallCode) -> Result<(), HvStatus> {
        let is_permitted = match call {
            CallCode::WITHDRAW_MEMORY | CallCode::GET_MEMORY_BALANCE | CallCode::GET_NEXT_CHILD_PARTITION => {
                true
            }
            CallCode::INITIALIZE_PARTITION => self == Self::Uninitialized,
            CallCode::FINALIZE_PARTITION => matches!(self, Self::Active | Self::Finalizing),
            CallCode::DELETE_PARTITION => matches!(self, Self::Uninitialized | Self::Finalized),
            CallCode::DEPOSIT_MEMORY
            | CallCode::GET_PARTITION_PROPERTY
            | CallCode::GET_PARTITION_PROPERTY_EX
            | CallCode::SET_PARTITION_PROPERTY
            | CallCode::SET_PARTITION_PROPERTY_EX => matches!(self, Self::Uninitialized | Self::Active),
            _ => self == Self::Active,
        };
        ensure(is_permitted, HvStatus::INVALID_PARTITION_STATE)
    }

    /// Checks that a property may be set now: what virtual processors were created with cannot change any more.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn permit_property(self, property: PropertyCode) -> Result<(), HvStatus> {
        self.permit(CallCode::SET_PARTITION_PROPERTY)?;
        let is_early = property == PropertyCode::SYNTHETIC_PROC_FEATURES;
        ensure(!is_early || self == Self::Uninitialized, HvStatus::INVALID_PARTITION_STATE)
    }

    /// The state after HvCallInitializePartition.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn initialize(self) -> Result<Self, HvStatus> {
        self.permit(CallCode::INITIALIZE_PARTITION)?;
        Ok(Self::Active)
    }

    /// The state while HvCallFinalizePartition works.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`, or `OPERATION_DENIED` while the partition has children.
    pub fn finalize(self, children: usize) -> Result<Self, HvStatus> {
        self.permit(CallCode::FINALIZE_PARTITION)?;
        if children == 0 { Ok(Self::Finalizing) } else { Err(HvStatus::OPERATION_DENIED) }
    }

    /// The state when the teardown has nothing left to do. Linux withdraws and deletes right after the call and does
    /// not repeat it, so a call which has to give up the processor half-way continues as the same hypercall.
    #[must_use]
    pub const fn finalized(self) -> Self {
        if matches!(self, Self::Finalizing) { Self::Finalized } else { self }
    }

    /// Checks that the partition may be deleted.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`, or `OPERATION_DENIED` while its pool holds pages.
    pub fn check_delete(self, pool_pages: usize) -> Result<(), HvStatus> {
        self.permit(CallCode::DELETE_PARTITION)?;
        ensure(pool_pages == 0, HvStatus::OPERATION_DENIED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const STATES: [State; 4] = [State::Uninitialized, State::Active, State::Finalizing, State::Finalized];
    const REFUSED: Result<(), HvStatus> = Err(HvStatus::INVALID_PARTITION_STATE);

    fn permitted(state: State) -> Vec<CallCode> {
        CallCode::NAMED.iter().copied().filter(|call| state.permit(*call).is_ok()).collect()
    }

    #[test]
    fn a_partition_goes_through_its_states_in_order() {
        let state = State::Uninitialized.initialize().unwrap();
        assert_eq!(state, State::Active);
        let state = state.finalize(0).unwrap();
        assert_eq!(state.finalize(0), Ok(State::Finalizing), "the call continues");
        let state = state.finalized();
        assert_eq!(state, State::Finalized);
        assert_eq!(state.check_delete(0), Ok(()));
    }

    #[test]
    fn an_uninitialized_partition_can_be_deleted_but_not_finalized() {
        assert_eq!(State::Uninitialized.check_delete(0), Ok(()));
        assert!(State::Uninitialized.finalize(0).is_err());
        assert_eq!(State::Uninitialized.finalized(), State::Uninitialized);
    }

    #[test]
    fn no_other_transition_exists() {
        for state in STATES {
            assert_eq!(state.initialize().is_ok(), state == State::Uninitialized);
            assert_eq!(state.finalize(0).is_ok(), matches!(state, State::Active | State::Finalizing));
            assert_eq!(
                state.check_delete(0).is_ok(),
                matches!(state, State::Uninitialized | State::Finalized)
            );
        }
    }

    #[test]
    fn children_and_pages_hold_a_partition() {
        assert_eq!(State::Active.finalize(1), Err(HvStatus::OPERATION_DENIED));
        assert_eq!(State::Finalized.check_delete(1), Err(HvStatus::OPERATION_DENIED));
        assert_eq!(State::Active.check_delete(0), REFUSED);
    }

    #[test]
    fn only_a_few_calls_reach_an_inactive_partition() {
        let common =
            [CallCode::GET_NEXT_CHILD_PARTITION, CallCode::WITHDRAW_MEMORY, CallCode::GET_MEMORY_BALANCE];
        for call in common {
            assert!(STATES.iter().all(|state| state.permit(call).is_ok()));
        }
        assert_eq!(permitted(State::Uninitialized).len(), common.len() + 7);
        assert_eq!(permitted(State::Finalizing).len(), common.len() + 1);
        assert_eq!(permitted(State::Finalized).len(), common.len() + 1);
        assert_eq!(permitted(State::Active).len(), CallCode::NAMED.len() - 2);
        assert_eq!(State::Finalized.permit(CallCode::UNMAP_GPA_PAGES), REFUSED);
        assert_eq!(State::Finalized.permit(CallCode::DEPOSIT_MEMORY), REFUSED);
        assert_eq!(State::Uninitialized.permit(CallCode::CREATE_VP), REFUSED);
    }

    #[test]
    fn synthetic_features_are_fixed_by_initialization() {
        let features = PropertyCode::SYNTHETIC_PROC_FEATURES;
        assert_eq!(State::Uninitialized.permit_property(features), Ok(()));
        assert_eq!(State::Active.permit_property(features), REFUSED);
        assert_eq!(State::Active.permit_property(PropertyCode::TIME_FREEZE), Ok(()));
        assert_eq!(State::Finalized.permit_property(PropertyCode::TIME_FREEZE), REFUSED);
    }
}
