//! One producer's life on librdkafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::settings::{Delivery, Kafka};
use crate::failpoint;
use crate::forwarder::cluster::{Failure, Session};
use crate::forwarder::kafka::ears::Ears;
use crate::forwarder::kafka::errand::Errands;
use crate::forwarder::kafka::topics::Administrator;
use crate::forwarder::kafka::{Patience, code, config, failure, serve};
use crate::forwarder::outcome::{Call, Code};
use crate::forwarder::record::Record;
use crate::forwarder::resume::{Committed, ResumePoint};
use crate::forwarder::timestamp::TopicLimits;

/// Bytes handed to the library and not yet delivered; a single record may be larger.
const IN_FLIGHT: usize = 1024 * 1024;

/// What may still be in flight when a wait at the limit ends: the broker's thread has enough to do while the wait goes on.
const ENOUGH: usize = IN_FLIGHT / 4 * 3;

/// Delivery reports are heard after so many records at the latest.
const HEAR_EVERY: u32 = 64;

/// One wait for delivery reports. The library's own wait has whole milliseconds, lasts its whole time whatever comes
/// meanwhile, and spins through its last one: on a small machine that is the broker's time.
const HEAR: Duration = Duration::from_micros(500);

/// One slice of a transaction call that can be resumed.
const CALL_SLICE: Duration = Duration::from_millis(250);

/// How long after its time a message may be reported as not delivered, and a call as failed.
const REPORT: Duration = Duration::from_secs(2);

/// How long a broker may take to tell a topic's configuration: without it the configured values do, and readings wait.
const LIMITS_LIMIT: Duration = Duration::from_secs(5);

/// The partition of the resume topic that the resume point belongs to.
const RESUME_PARTITION: i32 = 0;

/// A session: first a reader, then a producer.
pub struct Link {
    settings: Arc<Kafka>,
    agent_id: Arc<str>,
    group: String,
    topics: Vec<Arc<str>>,
    patience: Patience,
    /// Until the resume point was read: a second client costs memory.
    reader: Option<BaseConsumer<Ears>>,
    /// What `send_offsets_to_transaction` wants to know of the group.
    membership: Option<Arc<ConsumerGroupMetadata>>,
    producer: Option<Arc<BaseProducer<Ears>>>,
    errands: Errands,
    unheard: u32,
    /// When the transaction that is open must be over: the broker ends it then.
    deadline: Option<Instant>,
}

impl Link {
    pub fn new(
        settings: Arc<Kafka>,
        agent_id: Arc<str>,
        group: &str,
        topics: Vec<Arc<str>>,
        reader: BaseConsumer<Ears>,
        patience: Patience,
        errands: Errands,
    ) -> Self {
        let membership = reader.group_metadata().map(Arc::new);
        let group = group.to_owned();
        Self {
            settings,
            agent_id,
            group,
            topics,
            patience,
            reader: Some(reader),
            membership,
            producer: None,
            errands,
            unheard: 0,
            deadline: None,
        }
    }

    fn transactional(&self) -> bool {
        self.settings.delivery == Delivery::ExactlyOnce
    }

    fn producer(&self) -> &BaseProducer<Ears> {
        self.producer.as_deref().expect("init comes first")
    }

    /// Until when a call may wait that begins now.
    fn until(&self) -> Instant {
        let until = Instant::now() + config::call_limit(&self.settings);
        self.deadline.map_or(until, |deadline| until.min(deadline))
    }

    /// A failed call, with the error behind it where the library hides it behind "fatal" or a timeout.
    fn explain(&self, call: Call, error: &KafkaError) -> Failure {
        let mut failed = failure(call, error);
        let producer = self.producer();
        if let Some((code, reason)) = producer.client().fatal_error() {
            failed.code = code::translate(code);
            failed.detail = reason;
        } else if let Some(undelivered) = producer.context().undelivered() {
            return undelivered;
        } else if let (Code::OperationTimedOut, Some(cause)) = (failed.code, producer.context().cause()) {
            failed.detail = format!("{}: {cause}", failed.detail);
        }
        failed
    }

    /// A transaction call in slices; the library resumes it. Only for calls that may be repeated while they run.
    fn sliced(&self, call: Call, act: impl Fn(Duration) -> KafkaResult<()>) -> Result<(), Failure> {
        let (until, mut stopping) = (self.until(), None);
        loop {
            match act(CALL_SLICE) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error))
                    if error.is_retriable() && error.code() == RDKafkaErrorCode::OperationTimedOut =>
                {
                    self.producer().poll(Duration::ZERO);
                    let ears = self.producer().context();
                    if call == Call::Init {
                        ears.cut_off(call).map_or(Ok(()), Err)?;
                        self.patience.check(call, until, ears)?;
                    } else {
                        self.patience.check_open(call, until, &mut stopping, ears)?;
                    }
                }
                Err(error) => return Err(self.explain(call, &error)),
            }
        }
    }

    /// Hears the reports that are there.
    fn hear(&self) -> Result<(), Failure> {
        let producer = self.producer();
        loop {
            let before = producer.context().in_flight();
            producer.poll(Duration::ZERO);
            if producer.context().in_flight() == before {
                return self.undelivered();
            }
        }
    }

    /// Hears reports until `enough` of them were heard; `until` is when that has taken too long.
    fn wait_until(&self, until: Instant, enough: impl Fn(&BaseProducer<Ears>) -> bool) -> Result<(), Failure> {
        let (producer, mut stopping) = (self.producer(), None);
        self.hear()?;
        while !enough(producer) {
            std::thread::sleep(HEAR);
            self.hear()?;
            self.patience.check_open(Call::Produce, until, &mut stopping, producer.context())?;
        }
        Ok(())
    }

    /// Hears reports until less than `bytes` are in flight.
    fn wait_below(&self, bytes: usize) -> Result<(), Failure> {
        self.wait_until(self.until(), |producer| producer.context().in_flight() < bytes)
    }

    fn undelivered(&self) -> Result<(), Failure> {
        let Some(failed) = self.producer().context().undelivered() else { return Ok(()) };
        let purged = matches!(failed.code, Code::Fatal | Code::PurgeQueue | Code::PurgeInflight);
        if !purged {
            return Err(failed);
        }
        if let Some((code, detail)) = self.producer().client().fatal_error() {
            return Err(Failure { code: code::translate(code), detail, ..failed });
        }
        // Messages are purged when the transaction has failed; asking for another one is refused with the reason.
        if self.transactional()
            && let Err(error) = self.producer().begin_transaction()
        {
            let reason = failure(Call::Produce, &error);
            return Err(Failure { topic: None, ..reason });
        }
        Err(failed)
    }
}

impl Session for Link {
    fn init(&mut self) -> Result<(), Failure> {
        let producer = config::producer(&self.settings, &self.agent_id, &self.group)
            .create_with_context(Ears::default())
            .map_err(|error| failure(Call::Configure, &error))?;
        self.producer = Some(Arc::new(producer));
        if self.transactional() {
            self.sliced(Call::Init, |slice| self.producer().init_transactions(slice))?;
        }
        Ok(())
    }

    fn resume_point(&mut self) -> Result<Option<Committed>, Failure> {
        if !self.transactional() {
            return Ok(None);
        }
        let reader = self.reader.as_ref().expect("the resume point is read before the first transaction");
        let until = self.until();
        loop {
            let mut question = TopicPartitionList::new();
            question.add_partition(&self.settings.resume_topic, RESUME_PARTITION);
            let patience = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(4));
            let error = match reader.committed_offsets(question, patience) {
                Ok(answer) => match committed(&answer) {
                    Ok(point) => return Ok(point),
                    Err(error) => error,
                },
                Err(error) => failure(Call::ReadResumePoint, &error),
            };
            serve(reader);
            if error.code != Code::OperationTimedOut {
                return Err(error);
            }
            // Where the group may not be read the library asks for its coordinator again and again, until the call times out.
            reader.context().cut_off(Call::ReadResumePoint).map_or(Ok(()), Err)?;
            self.patience.check(Call::ReadResumePoint, until, reader.context())?;
        }
    }

    fn limits(&mut self) -> BTreeMap<Arc<str>, Result<TopicLimits, Failure>> {
        let config = config::common(&self.settings, &self.agent_id);
        match Administrator::new(&config, config::call_limit(&self.settings).min(LIMITS_LIMIT), Call::Topics) {
            Ok(administrator) => administrator.limits(&self.topics),
            Err(failed) => self.topics.iter().map(|topic| (Arc::clone(topic), Err(failed.clone()))).collect(),
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        self.reader = None;
        if self.transactional() {
            let begun = self.producer().begin_transaction();
            begun.map_err(|error| self.explain(Call::Begin, &error))?;
            self.deadline = Some(Instant::now() + self.settings.transaction_timeout);
        }
        Ok(())
    }

    fn produce(&mut self, record: &Record, timestamp_ms: i64) -> Result<(), Failure> {
        let mut headers = OwnedHeaders::new_with_capacity(7);
        for (key, value) in record.headers.list() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let producer = self.producer();
        let ears = producer.context();
        let value = record.value.len();
        let mut message = BaseRecord::to(&record.topic)
            .key(record.key.as_str())
            .payload(&record.value[..])
            .timestamp(timestamp_ms)
            .headers(headers);
        let flying = ears.in_flight();
        if flying > 0 && flying + value > IN_FLIGHT {
            self.wait_below(ENOUGH.saturating_sub(value).max(1))?;
        }
        while let Err((error, back)) = producer.send(message) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                let failed = self.explain(Call::Produce, &error);
                return Err(Failure { topic: Some(Arc::clone(&record.topic)), ..failed });
            }
            message = back;
            self.wait_below(ears.in_flight().max(1))?;
        }
        ears.handed_over(value);
        self.unheard += 1;
        if self.unheard >= HEAR_EVERY {
            self.unheard = 0;
            self.hear()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Failure> {
        // A message that is not delivered fails by itself after this; a little more, so that its report is heard.
        self.wait_until(self.until() + REPORT, |producer| producer.in_flight_count() == 0)
    }

    fn commit(&mut self, point: &ResumePoint) -> Result<(), Failure> {
        failpoint::hit("in-transaction");
        if !self.transactional() {
            return Ok(());
        }
        let offset = i64::try_from(point.next).expect("sequences stay below 2^63");
        let mut offsets = TopicPartitionList::new();
        let mut element = offsets.add_partition(&self.settings.resume_topic, RESUME_PARTITION);
        element.set_metadata(point.to_string());
        let placed = element.set_offset(Offset::Offset(offset));
        placed.map_err(|error| self.explain(Call::WriteResumePoint, &error))?;
        // Not in slices: a call repeated while the first still runs could have its late answer taken for the commit's.
        let (until, mut stopping) = (self.until(), None);
        let left = until.saturating_duration_since(Instant::now());
        let membership = self.membership.clone().expect("a consumer with a group has its metadata");
        let producer = self.producer.clone().expect("init comes first");
        let written = self.errands.run(
            Call::WriteResumePoint,
            move || producer.send_offsets_to_transaction(&offsets, &membership, left),
            || {
                let ears = self.producer().context();
                self.patience.check_open(Call::WriteResumePoint, until + REPORT, &mut stopping, ears)
            },
        )?;
        written.map_err(|error| self.explain(Call::WriteResumePoint, &error))?;
        failpoint::hit("offsets-sent");
        (self.patience.heartbeat)();
        self.sliced(Call::Commit, |slice| self.producer().commit_transaction(slice))?;
        failpoint::hit("kafka-committed");
        self.deadline = None;
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Failure> {
        let producer = self.producer();
        producer.poll(Duration::ZERO);
        match producer.client().fatal_error() {
            Some(_) => Err(self.explain(Call::Begin, &KafkaError::Global(RDKafkaErrorCode::Fatal))),
            None => producer.context().cut_off(Call::Topics).map_or(Ok(()), Err),
        }
    }
}

/// The group's offset in `answer`. Each element has an error of its own, whatever the call returned.
fn committed(answer: &TopicPartitionList) -> Result<Option<Committed>, Failure> {
    let elements = answer.elements();
    let element = elements.first().expect("the answer has the partition that was asked for");
    element.error().map_err(|error| failure(Call::ReadResumePoint, &error))?;
    match element.offset() {
        Offset::Invalid => Ok(None),
        Offset::Offset(offset) if offset >= 0 => {
            Ok(Some(Committed { offset: offset.unsigned_abs(), metadata: element.metadata().to_owned() }))
        }
        other => Err(Failure {
            call: Call::ReadResumePoint,
            code: Code::OffsetOutOfRange,
            topic: None,
            detail: format!("the committed offset is {other:?}"),
        }),
    }
}
