//! librdkafka's error codes to ours.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::forwarder::outcome::Code;

macro_rules! translate {
    ($($code:ident),+ $(,)?) => {
        /// The same code in the table's words; a code younger than this table is `Unlisted`.
        pub fn translate(code: RDKafkaErrorCode) -> Code {
            match code {
                $(RDKafkaErrorCode::$code => Code::$code,)+
                _ => Code::Unlisted,
            }
        }
    };
}

translate! {
        Begin, BadMessage, BadCompression, BrokerDestroy, Fail, BrokerTransportFailure, CriticalSystemResource,
        Resolve, MessageTimedOut, PartitionEOF, UnknownPartition, FileSystem, UnknownTopic, AllBrokersDown,
        InvalidArgument, OperationTimedOut, QueueFull, ISRInsufficient, NodeUpdate, SSL, WaitingForCoordinator,
        UnknownGroup, InProgress, PreviousInProgress, ExistingSubscription, AssignPartitions, RevokePartitions,
        Conflict, State, UnknownProtocol, NotImplemented, Authentication, NoOffset, Outdated, TimedOutQueue,
        UnsupportedFeature, WaitCache, Interrupted, KeySerialization, ValueSerialization, KeyDeserialization,
        ValueDeserialization, Partial, ReadOnly, NoEnt, Underflow, InvalidType, Retry, PurgeQueue, PurgeInflight,
        Fatal, Inconsistent, GaplessGuarantee, PollExceeded, UnknownBroker, NotConfigured, Fenced, Application,
        AssignmentLost, Noop, AutoOffsetReset, LogTruncation, InvalidDifferentRecord, DestroyBroker, End, Unknown,
        NoError, OffsetOutOfRange, InvalidMessage, UnknownTopicOrPartition, InvalidMessageSize, LeaderNotAvailable,
        NotLeaderForPartition, RequestTimedOut, BrokerNotAvailable, ReplicaNotAvailable, MessageSizeTooLarge,
        StaleControllerEpoch, OffsetMetadataTooLarge, NetworkException, CoordinatorLoadInProgress,
        CoordinatorNotAvailable, NotCoordinator, InvalidTopic, MessageBatchTooLarge, NotEnoughReplicas,
        NotEnoughReplicasAfterAppend, InvalidRequiredAcks, IllegalGeneration, InconsistentGroupProtocol,
        InvalidGroupId, UnknownMemberId, InvalidSessionTimeout, RebalanceInProgress, InvalidCommitOffsetSize,
        TopicAuthorizationFailed, GroupAuthorizationFailed, ClusterAuthorizationFailed, InvalidTimestamp,
        UnsupportedSASLMechanism, IllegalSASLState, UnsupportedVersion, TopicAlreadyExists, InvalidPartitions,
        InvalidReplicationFactor, InvalidReplicaAssignment, InvalidConfig, NotController, InvalidRequest,
        UnsupportedForMessageFormat, PolicyViolation, OutOfOrderSequenceNumber, DuplicateSequenceNumber,
        InvalidProducerEpoch, InvalidTransactionalState, InvalidProducerIdMapping, InvalidTransactionTimeout,
        ConcurrentTransactions, TransactionCoordinatorFenced, TransactionalIdAuthorizationFailed, SecurityDisabled,
        OperationNotAttempted, KafkaStorageError, LogDirNotFound, SaslAuthenticationFailed, UnknownProducerId,
        ReassignmentInProgress, DelegationTokenAuthDisabled, DelegationTokenNotFound, DelegationTokenOwnerMismatch,
        DelegationTokenRequestNotAllowed, DelegationTokenAuthorizationFailed, DelegationTokenExpired,
        InvalidPrincipalType, NonEmptyGroup, GroupIdNotFound, FetchSessionIdNotFound, InvalidFetchSessionEpoch,
        ListenerNotFound, TopicDeletionDisabled, FencedLeaderEpoch, UnknownLeaderEpoch, UnsupportedCompressionType,
        StaleBrokerEpoch, OffsetNotAvailable, MemberIdRequired, PreferredLeaderNotAvailable, GroupMaxSizeReached,
        FencedInstanceId, EligibleLeadersNotAvailable, ElectionNotNeeded, NoReassignmentInProgress,
        GroupSubscribedToTopic, InvalidRecord, UnstableOffsetCommit, ThrottlingQuotaExceeded, ProducerFenced,
        ResourceNotFound, DuplicateResource, UnacceptableCredential, InconsistentVoterSet, InvalidUpdateVersion,
        FeatureUpdateFailed, PrincipalDeserializationFailure, UnknownTopicId, FencedMemberEpoch,
        UnreleasedInstanceId, UnsupportedAssignor, StaleMemberEpoch, UnknownSubscriptionId, TelemetryTooLarge,
        RebootstrapRequired, EndAll,
}

/// The code in `error`; one that never reached a broker has the code of its kind.
pub fn of(error: &KafkaError) -> Code {
    match error {
        KafkaError::AdminOp(code) => translate(*code),
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) | KafkaError::AdminOpCreation(_) => {
            Code::InvalidArgument
        }
        KafkaError::Canceled => Code::Interrupted,
        other => other.rdkafka_error_code().map_or(Code::Unlisted, translate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Promise 5: no code of the library in use falls through the table.
    #[test]
    fn every_code_is_in_the_table() {
        let mut seen = BTreeSet::new();
        for number in -250..250 {
            let Ok(code) = rdkafka::types::RDKafkaRespErr::try_from(number) else { continue };
            let translated = translate(code.into());
            assert_ne!(translated, Code::Unlisted, "{number}");
            seen.insert(translated);
        }
        assert_eq!(seen.len(), Code::ALL.len() - 1, "all but `Unlisted`");
    }
}
