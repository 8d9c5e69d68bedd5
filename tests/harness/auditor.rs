//! The independent auditor: reads everything that Kafka shows a `read_committed` consumer and compares it with what was
//! published. It shares no code with the agent and computes what it expects by itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::document::Message;
use super::kafka::Kafka;
use super::wait::{self, PATIENT};

const READING: &str = "io.meterferry.reading";
const GAP: &str = "io.meterferry.gap";
const RECEIPT: &str = "io.meterferry.receipt";
const TIMEOUT: Duration = Duration::from_secs(10);

/// One record as a consumer gets it.
#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub value: Vec<u8>,
    pub headers: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// A gap record's value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Gap {
    pub first: u64,
    pub last: u64,
    pub count: u64,
    pub reason: String,
}

impl Record {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// What it explains; none for a reading.
    pub fn gap(&self) -> Option<Gap> {
        (self.header("ce_type") == GAP).then(|| serde_json::from_slice(&self.value).expect("a gap record is JSON"))
    }

    /// Whether it is a daily receipt.
    pub fn is_receipt(&self) -> bool {
        self.header("ce_type") == RECEIPT
    }

    /// Queue id and sequence, from `ce_id`.
    pub fn id(&self) -> (&str, u64) {
        let (queue, sequence) = self.header("ce_id").split_once('-').expect("ce_id is <queue id>-<sequence>");
        (queue, sequence.parse().expect("a sequence is a number"))
    }
}

/// Reads one topic.
pub struct Auditor {
    config: ClientConfig,
    topic: String,
}

impl Auditor {
    pub fn new(kafka: &Kafka, topic: &str) -> Self {
        let mut config = kafka.client();
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("isolation.level", "read_committed").set("check.crcs", "true");
        Self { config, topic: topic.to_owned() }
    }

    /// Everything in the topic, by partition and offset. Waits until no transaction is open.
    pub fn records(&self) -> Vec<Record> {
        self.settle();
        let mut records = self.read_to_end();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Waits until each of `messages` can be read at least once, then audits.
    #[track_caller]
    pub fn wait_for(&self, messages: &[Message], limit: Duration) -> Audit {
        let consumer = self.consumer();
        let mut wanted: HashSet<&[u8]> = messages.iter().map(|message| &message.payload[..]).collect();
        let all = wanted.len();
        let start = std::time::Instant::now();
        while !wanted.is_empty() {
            assert!(
                start.elapsed() < limit,
                "after {limit:?} {} of {all} published messages are not in {}; one is {}",
                wanted.len(),
                self.topic,
                String::from_utf8_lossy(wanted.iter().next().expect("one is left"))
            );
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                wanted.remove(message.payload().unwrap_or_default());
            }
        }
        self.audit(messages)
    }

    /// Waits until at least `count` records can be read.
    #[track_caller]
    pub fn wait_count(&self, count: usize, limit: Duration) {
        let consumer = self.consumer();
        let mut seen = 0;
        wait::until_true(&format!("{count} records in {}", self.topic), limit, || {
            while let Some(result) = consumer.poll(Duration::from_millis(50)) {
                seen += usize::from(result.is_ok());
            }
            seen >= count
        });
    }

    /// Compares what is there with what was published: `messages` in the order in which each device published them.
    pub fn audit(&self, messages: &[Message]) -> Audit {
        Audit::new(self.records(), self.partitions(), messages)
    }

    fn partitions(&self) -> i32 {
        let consumer: BaseConsumer = self.config.create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(&self.topic), TIMEOUT).expect("Kafka answers");
        let topic = metadata.topics().first().expect("the topic asked for");
        assert!(topic.error().is_none(), "topic {}: {:?}", self.topic, topic.error());
        i32::try_from(topic.partitions().len()).expect("a number of partitions")
    }

    /// Waits until a `read_committed` reader may read to the very end: an open transaction would hide what follows it.
    fn settle(&self) {
        let committed: BaseConsumer = self.config.create().expect("a client");
        let mut uncommitted = self.config.clone();
        let uncommitted: BaseConsumer =
            uncommitted.set("isolation.level", "read_uncommitted").create().expect("a client");
        for partition in 0..self.partitions() {
            wait::until_true("open transactions to end", PATIENT, || {
                let end = |consumer: &BaseConsumer| consumer.fetch_watermarks(&self.topic, partition, TIMEOUT);
                matches!((end(&uncommitted), end(&committed)), (Ok(a), Ok(b)) if a == b)
            });
        }
    }

    fn consumer(&self) -> BaseConsumer {
        let consumer: BaseConsumer = self.config.create().expect("a client");
        let mut list = TopicPartitionList::new();
        for partition in 0..self.partitions() {
            list.add_partition_offset(&self.topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        consumer
    }

    fn read_to_end(&self) -> Vec<Record> {
        let consumer = self.consumer();
        let mut open: HashSet<i32> = (0..self.partitions()).collect();
        let mut records = Vec::new();
        let start = std::time::Instant::now();
        while !open.is_empty() {
            assert!(start.elapsed() < PATIENT, "cannot read {} to its end within {PATIENT:?}", self.topic);
            match consumer.poll(Duration::from_millis(100)) {
                None => (),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                // Clients report lost connections here and go on by themselves.
                Some(Err(error)) => eprintln!("auditor: {error}"),
                Some(Ok(message)) => records.push(record(&message)),
            }
        }
        records
    }
}

fn record(message: &rdkafka::message::BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
    }
}

/// What the comparison found.
pub struct Audit {
    /// Everything read, gap records included.
    pub records: Vec<Record>,
    /// Published and not there.
    pub lost: Vec<Message>,
    /// Records beyond the first of each message.
    pub repeated: usize,
    /// Different `ce_id`s beyond the first of each message: repeats that a consumer cannot drop.
    pub repeated_ids: usize,
    /// Readings that nobody published.
    pub foreign: usize,
    /// First appearances that stand after a later one of their device.
    pub out_of_order: usize,
    /// Wrong keys, partitions and headers, in words.
    pub wrong: Vec<String>,
}

impl Audit {
    fn new(records: Vec<Record>, partitions: i32, messages: &[Message]) -> Self {
        let mut place = HashMap::new();
        for (index, message) in messages.iter().enumerate() {
            let twice = place.insert(&message.payload[..], index);
            assert!(twice.is_none(), "the test published the same bytes twice");
        }
        let mut audit = Self {
            records: Vec::new(),
            lost: Vec::new(),
            repeated: 0,
            repeated_ids: 0,
            foreign: 0,
            out_of_order: 0,
            wrong: Vec::new(),
        };
        let mut ids: HashMap<usize, HashSet<&str>> = HashMap::new();
        let mut last: HashMap<&str, usize> = HashMap::new();
        for record in &records {
            audit.wrong.extend(wrong_form(record, partitions));
            if record.gap().is_some() || record.is_receipt() {
                continue;
            }
            let Some(&index) = place.get(&record.value[..]) else {
                audit.foreign += 1;
                continue;
            };
            let device = &messages[index].device;
            if record.key != *device {
                audit.wrong.push(format!("key {:?} instead of {device:?}", record.key));
            }
            if let Some(seen) = ids.get_mut(&index) {
                audit.repeated += 1;
                audit.repeated_ids += usize::from(seen.insert(record.header("ce_id")));
                continue;
            }
            ids.insert(index, HashSet::from([record.header("ce_id")]));
            let newest = last.entry(device).or_insert(index);
            audit.out_of_order += usize::from(*newest > index);
            *newest = index.max(*newest);
        }
        let missing = messages.iter().enumerate().filter(|(index, _)| !ids.contains_key(index));
        audit.lost = missing.map(|(_, message)| message.clone()).collect();
        audit.wrong.extend(wrong_sequences(&records));
        audit.records = records;
        audit
    }

    /// Promises 3 and 4: everything once, in order, as it was, and nothing else.
    #[track_caller]
    pub fn assert_exact(&self) {
        let clean = self.repeated == 0 && self.foreign == 0;
        assert!(clean, "{self}");
        self.assert_nothing_lost();
    }

    /// Promise 3, where only one can be had: everything at least once, and first appearances in order.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty() && self.out_of_order == 0 && self.wrong.is_empty(), "{self}");
    }

    /// Promise 3 in `at-least-once`: as [`Audit::assert_exact`] for a consumer that drops repeats by `ce_id`.
    #[track_caller]
    pub fn assert_exact_by_id(&self) {
        assert!(self.repeated_ids == 0 && self.foreign == 0, "{self}");
        self.assert_nothing_lost();
    }

    /// The gap records.
    pub fn gaps(&self) -> Vec<Gap> {
        self.records.iter().filter_map(Record::gap).collect()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records: {} lost, {} repeated ({} under another id), {} foreign, {} out of order, {} wrong",
            self.records.len(),
            self.lost.len(),
            self.repeated,
            self.repeated_ids,
            self.foreign,
            self.out_of_order,
            self.wrong.len()
        )?;
        for message in self.lost.iter().take(3) {
            write!(f, "\n  lost: {}", String::from_utf8_lossy(&message.payload))?;
        }
        for problem in self.wrong.iter().take(10) {
            write!(f, "\n  wrong: {problem}")?;
        }
        for record in self.records.iter().filter(|_| self.foreign > 0).take(3) {
            write!(f, "\n  there: {} {}", record.key, String::from_utf8_lossy(&record.value))?;
        }
        Ok(())
    }
}

/// What is wrong with one record's partition and headers.
fn wrong_form(record: &Record, partitions: i32) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, right: bool, found: &str| {
        if !right {
            wrong.push(format!("{what} at {}/{}: {found:?}", record.partition, record.offset));
        }
    };
    let partition = i32::try_from(murmur2(record.key.as_bytes()) & 0x7fff_ffff).expect("31 bits") % partitions;
    expect("partition", record.partition == partition, &record.key);
    let id = record.header("ce_id");
    let sequence = record.header("ce_sequence");
    let parts = id.split_once('-').and_then(|(queue, number)| Some((queue, number.parse::<u64>().ok()?)));
    expect("ce_id", parts.is_some_and(|(queue, _)| queue.len() == 32), id);
    expect("ce_sequence", parts.is_some_and(|(_, number)| sequence == format!("{number:020}")), sequence);
    expect("ce_specversion", record.header("ce_specversion") == "1.0", record.header("ce_specversion"));
    let kind = record.header("ce_type");
    expect("ce_type", [READING, GAP, RECEIPT].contains(&kind), kind);
    expect("ce_source", record.header("ce_source").starts_with('/'), record.header("ce_source"));
    let time = record.header("ce_time");
    expect("ce_time", time.parse::<jiff::Timestamp>().is_ok(), time);
    let content = record.header("content-type");
    expect("content-type", ["application/json", "application/octet-stream"].contains(&content), content);
    wrong
}

/// An audit finds losses by rising sequences: within a queue id every number is there once, or explained.
fn wrong_sequences(records: &[Record]) -> Vec<String> {
    let mut queues: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for record in records {
        if record.header("ce_id").split_once('-').is_none() {
            continue;
        }
        let (queue, sequence) = record.id();
        let range = record.gap().map_or((sequence, sequence), |gap| (gap.first, gap.last));
        queues.entry(queue).or_default().push(range);
    }
    let mut wrong = Vec::new();
    for (queue, mut ranges) in queues {
        ranges.sort_unstable();
        ranges.dedup();
        for pair in ranges.windows(2) {
            if pair[1].0 > pair[0].1 + 1 {
                wrong.push(format!(
                    "queue {queue}: sequences {} to {} are not explained",
                    pair[0].1 + 1,
                    pair[1].0 - 1
                ));
            }
        }
    }
    wrong
}

/// The hash of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("a key");
    let mut hash = 0x9747_b28c ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, &byte| tail << 8 | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}
