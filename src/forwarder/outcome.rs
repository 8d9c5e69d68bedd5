//! What an error of Kafka means and what is done about it: one table. Pure.
//!
//! The codes are those of librdkafka (`rd_kafka_resp_err_t`), under the names the Rust binding gives them; `kafka/code.rs`
//! translates and its test shows that none is missing here.

use std::fmt;

/// Which step of the protocol failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Making a client: the properties.
    Configure,
    /// Connecting, and asking for the topics.
    Topics,
    /// Making a missing topic.
    CreateTopic,
    /// `init_transactions`.
    Init,
    /// Reading the resume point.
    ReadResumePoint,
    /// `begin_transaction`.
    Begin,
    /// Handing a record over, or its delivery report.
    Produce,
    /// `send_offsets_to_transaction`.
    WriteResumePoint,
    /// `commit_transaction`.
    Commit,
}

/// What was being done.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "making the client",
            Self::Topics => "asking for the topics",
            Self::CreateTopic => "making the topic",
            Self::Init => "initialising transactions",
            Self::ReadResumePoint => "reading the resume point",
            Self::Begin => "beginning a transaction",
            Self::Produce => "sending records",
            Self::WriteResumePoint => "writing the resume point",
            Self::Commit => "committing",
        })
    }
}

impl Call {
    /// Whether a transaction may be open, or its outcome unknown, after this call failed.
    pub fn leaves_doubt(self) -> bool {
        match self {
            Self::Configure | Self::Topics | Self::CreateTopic | Self::Init | Self::ReadResumePoint => false,
            Self::Begin | Self::Produce | Self::WriteResumePoint | Self::Commit => true,
        }
    }
}

/// What a code says about the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The network, a broker or a coordinator is not there at the moment.
    Transient,
    /// Another producer has our transactional id, or an own transaction timed out: looks the same.
    Fenced,
    /// One of the records, or their size together.
    Record,
    /// The record's timestamp, or the clock it came from.
    Timestamp,
    /// A topic or partition does not exist.
    Topic,
    /// A right is missing.
    Right,
    /// User, password, certificate or mechanism.
    Login,
    /// The service does not offer what was asked for.
    Unsupported,
    /// A setting, here or at the broker.
    Setting,
    /// Nothing that can happen in this protocol; taken for an unknown outcome.
    Unexpected,
}

impl Code {
    /// Whether a broker has answered with it that it needs time: Kafka was reached.
    pub fn asks_for_time(self) -> bool {
        matches!(
            self,
            Self::CoordinatorLoadInProgress
                | Self::CoordinatorNotAvailable
                | Self::NotCoordinator
                | Self::ConcurrentTransactions
                | Self::LeaderNotAvailable
                | Self::NotLeaderForPartition
                | Self::NotEnoughReplicas
                | Self::NotEnoughReplicasAfterAppend
                | Self::RebalanceInProgress
                | Self::UnstableOffsetCommit
                | Self::ThrottlingQuotaExceeded
        )
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Connect again after a delay.
    Retry,
    /// Half as many records in the next transaction, at once.
    Halve,
    /// The only record of the batch is refused for good.
    DeadLetter,
    /// The outcome is unknown: a new producer, `init_transactions`, read the resume point.
    Rebuild,
    /// As `Retry`, and somebody is told what to do.
    PersonMustAct(Class),
}

/// What a transaction that failed held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Records of several sequences.
    Several,
    /// A reading alone.
    Reading,
    /// Only what explains missing sequences. It is never given up: a sequence that is missing without a word cannot be told
    /// from a lost one, and a topic that refuses even this would send the whole backlog to the dead letters.
    Explanation,
}

/// The table: what is done about `code`, met in `call` with a transaction that `held` this.
///
/// Whatever the outcome, a producer whose call failed is never used again.
pub fn decide(code: Code, call: Call, held: Held) -> Outcome {
    let class = code.class();
    match (class, held) {
        (Class::Record, Held::Reading) if call == Call::Produce => Outcome::DeadLetter,
        (Class::Record, Held::Several) if call == Call::Produce => Outcome::Halve,
        (Class::Record, Held::Explanation) if call == Call::Produce => Outcome::PersonMustAct(Class::Record),
        _ => by_class(class, call),
    }
}

fn by_class(class: Class, call: Call) -> Outcome {
    match class {
        Class::Record => Outcome::PersonMustAct(Class::Setting),
        Class::Transient | Class::Unexpected if call.leaves_doubt() => Outcome::Rebuild,
        Class::Transient | Class::Unexpected => Outcome::Retry,
        Class::Fenced => Outcome::Rebuild,
        Class::Timestamp | Class::Topic | Class::Right | Class::Login | Class::Unsupported | Class::Setting => {
            Outcome::PersonMustAct(class)
        }
    }
}

macro_rules! codes {
    ($($class:ident: $($code:ident),+ $(,)?;)+) => {
        /// librdkafka's error codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($($code,)+)+
        }

        impl Code {
            /// Every one of them.
            #[cfg(test)]
            pub const ALL: &[Self] = &[$($(Self::$code,)+)+];

            /// What it says about the world.
            pub fn class(self) -> Class {
                match self {
                    $($(Self::$code)|+ => Class::$class,)+
                }
            }
        }
    };
}

codes! {
    Transient:
        BrokerDestroy, Fail, BrokerTransportFailure, Resolve, MessageTimedOut, AllBrokersDown, OperationTimedOut, QueueFull,
        ISRInsufficient, NodeUpdate, WaitingForCoordinator, InProgress, PreviousInProgress, TimedOutQueue, WaitCache, Interrupted,
        Partial, Retry, PurgeQueue, PurgeInflight, UnknownBroker, DestroyBroker, CriticalSystemResource, Outdated,
        // The checksum did not match: the network or the broker's disk, never the record.
        InvalidMessage,
        LeaderNotAvailable, NotLeaderForPartition, RequestTimedOut, BrokerNotAvailable, ReplicaNotAvailable, StaleControllerEpoch,
        NetworkException, CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, NotEnoughReplicas,
        NotEnoughReplicasAfterAppend, RebalanceInProgress, NotController, ConcurrentTransactions, OperationNotAttempted,
        KafkaStorageError, LogDirNotFound, ReassignmentInProgress, FetchSessionIdNotFound, InvalidFetchSessionEpoch, ListenerNotFound,
        FencedLeaderEpoch, UnknownLeaderEpoch, StaleBrokerEpoch, OffsetNotAvailable, PreferredLeaderNotAvailable,
        EligibleLeadersNotAvailable, UnstableOffsetCommit, ThrottlingQuotaExceeded, FeatureUpdateFailed, Unknown;
    Fenced:
        Fatal, Inconsistent, GaplessGuarantee, Fenced, State, Conflict,
        OutOfOrderSequenceNumber, DuplicateSequenceNumber, InvalidProducerEpoch, InvalidTransactionalState,
        InvalidProducerIdMapping, TransactionCoordinatorFenced, UnknownProducerId, FencedInstanceId, ProducerFenced;
    Record:
        InvalidDifferentRecord, InvalidMessageSize, MessageSizeTooLarge, MessageBatchTooLarge, InvalidRecord;
    Timestamp:
        InvalidTimestamp;
    Topic:
        UnknownPartition, UnknownTopic, UnknownTopicOrPartition, InvalidTopic;
    Right:
        TopicAuthorizationFailed, GroupAuthorizationFailed, ClusterAuthorizationFailed, TransactionalIdAuthorizationFailed,
        DelegationTokenAuthorizationFailed;
    Login:
        SSL, Authentication, UnsupportedSASLMechanism, IllegalSASLState, SaslAuthenticationFailed, SecurityDisabled,
        DelegationTokenAuthDisabled, DelegationTokenNotFound, DelegationTokenOwnerMismatch, DelegationTokenRequestNotAllowed,
        DelegationTokenExpired, InvalidPrincipalType, UnacceptableCredential;
    Unsupported:
        UnknownProtocol, NotImplemented, UnsupportedFeature, UnsupportedVersion, UnsupportedForMessageFormat,
        UnsupportedCompressionType, BadCompression;
    Setting:
        FileSystem, InvalidArgument, NotConfigured, ReadOnly, InvalidType, OffsetMetadataTooLarge, InvalidRequiredAcks, InvalidGroupId,
        InvalidSessionTimeout, InvalidCommitOffsetSize, InvalidPartitions, InvalidReplicationFactor, InvalidReplicaAssignment,
        InvalidConfig, PolicyViolation, InvalidTransactionTimeout, GroupMaxSizeReached, TopicDeletionDisabled;
    Unexpected:
        Begin, BadMessage, PartitionEOF, UnknownGroup, ExistingSubscription, AssignPartitions, RevokePartitions, NoOffset,
        KeySerialization, ValueSerialization, KeyDeserialization, ValueDeserialization, NoEnt, Underflow, PollExceeded,
        Application, AssignmentLost, Noop, AutoOffsetReset, LogTruncation, End, NoError, OffsetOutOfRange, IllegalGeneration,
        InconsistentGroupProtocol, UnknownMemberId, TopicAlreadyExists, InvalidRequest, NonEmptyGroup, GroupIdNotFound,
        MemberIdRequired, ElectionNotNeeded, NoReassignmentInProgress, GroupSubscribedToTopic, ResourceNotFound, DuplicateResource,
        InconsistentVoterSet, InvalidUpdateVersion, PrincipalDeserializationFailure, UnknownTopicId, FencedMemberEpoch,
        UnreleasedInstanceId, UnsupportedAssignor, StaleMemberEpoch, UnknownSubscriptionId, TelemetryTooLarge,
        RebootstrapRequired, EndAll, Unlisted;
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: [Call; 9] = [
        Call::Configure,
        Call::Topics,
        Call::CreateTopic,
        Call::Init,
        Call::ReadResumePoint,
        Call::Begin,
        Call::Produce,
        Call::WriteResumePoint,
        Call::Commit,
    ];

    /// Promises 2, 3 and 5: over the whole table, only a record alone is condemned, only by its own error, and whatever
    /// may leave a transaction in doubt is never simply tried again.
    #[test]
    fn whole_table() {
        for &code in Code::ALL {
            for call in CALLS {
                for held in [Held::Several, Held::Reading, Held::Explanation] {
                    let outcome = decide(code, call, held);
                    let at = format!("{code:?} in {call:?}, held: {held:?}");
                    if outcome == Outcome::DeadLetter {
                        assert!(
                            held == Held::Reading && call == Call::Produce && code.class() == Class::Record,
                            "{at}"
                        );
                    }
                    if outcome == Outcome::Halve {
                        assert!(
                            held == Held::Several && call == Call::Produce && code.class() == Class::Record,
                            "{at}"
                        );
                    }
                    if call.leaves_doubt() {
                        assert_ne!(outcome, Outcome::Retry, "{at}");
                    }
                    if matches!(code.class(), Class::Right | Class::Login | Class::Topic) {
                        assert_eq!(outcome, Outcome::PersonMustAct(code.class()), "{at}");
                    }
                }
            }
        }
    }

    /// Promise 5: the codes one meets, as DESIGN.md says.
    #[test]
    fn codes_one_meets() {
        let decide = |code, call| decide(code, call, Held::Reading);
        assert_eq!(decide(Code::MessageSizeTooLarge, Call::Produce), Outcome::DeadLetter);
        assert_eq!(super::decide(Code::InvalidRecord, Call::Produce, Held::Several), Outcome::Halve);
        let explanation = super::decide(Code::MessageSizeTooLarge, Call::Produce, Held::Explanation);
        assert_eq!(explanation, Outcome::PersonMustAct(Class::Record));
        assert_eq!(decide(Code::InvalidTimestamp, Call::Produce), Outcome::PersonMustAct(Class::Timestamp));
        assert_eq!(decide(Code::ProducerFenced, Call::Commit), Outcome::Rebuild);
        assert_eq!(decide(Code::OperationTimedOut, Call::Commit), Outcome::Rebuild);
        assert_eq!(decide(Code::BrokerTransportFailure, Call::Topics), Outcome::Retry);
        assert_eq!(decide(Code::UnsupportedVersion, Call::Init), Outcome::PersonMustAct(Class::Unsupported));
    }
}
