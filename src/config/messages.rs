//! Every message of the configuration, as a person reads it: each snapshot shows a file and what is said to it.

use std::fmt::Write as _;

use super::{Environment, load};

/// What is said to a folder that holds `files`, of which `meterferry.toml` is one.
fn said(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
        std::fs::write(path, content).expect("write");
    }
    let variables = ["state", "credentials"].map(|name| folder.path().join(name));
    let [state, credentials] = variables;
    let environment =
        Environment::of(folder.path(), [("STATE_DIRECTORY", state), ("CREDENTIALS_DIRECTORY", credentials)]);
    let said = match load(None, &environment) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect::<String>() + "ok",
        Err(problems) => problems.to_string(),
    };
    let mut lines = said.lines().peekable();
    while let Some(line) = lines.next() {
        let cured = lines.peek().is_some_and(|next| next.starts_with("  hint: "));
        assert!(cured || !line.starts_with("error: "), "each error has its cure: {line}");
    }
    said.replace(&format!("{}/", folder.path().display()), "")
}

const SERVERS: &str = "[kafka]\nbootstrap_servers = [\"k:9092\"]\n";
const SOURCE: &str = "[[source]]\nname = \"sma\"\ntype = \"mqtt\"\n";

/// One file after another, each with what is said to it; `rest` follows each one unseen.
fn transcript(cases: impl IntoIterator<Item = impl AsRef<str>>, rest: &str) -> String {
    let mut text = String::new();
    for case in cases {
        let case = case.as_ref().trim_end();
        let said = said(&[("meterferry.toml", &format!("{case}\n{rest}"))]);
        let _ = write!(text, "{case}\n\n{said}\n\n{}\n\n", "=".repeat(72));
    }
    text
}

fn shows(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Cases that are keys of one table, with the rest of a right file behind them.
fn keys(table: &str, lines: &[&str]) -> String {
    let rest = match table {
        "kafka" => SOURCE.to_owned(),
        _ => format!("{SERVERS}{SOURCE}"),
    };
    let servers = if table == "kafka" { "bootstrap_servers = [\"k:9092\"]\n" } else { "" };
    let mut text = String::new();
    for line in lines {
        let servers = if line.contains("bootstrap_servers") { "" } else { servers };
        let said = said(&[("meterferry.toml", &format!("[{table}]\n{line}\n{servers}{rest}"))]);
        let _ = write!(text, "[{table}] {line}\n{said}\n\n");
    }
    text
}

/// Cases that are keys of a source of a type.
fn source_keys(kind: &str, lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let file = format!("{SERVERS}[[source]]\nname = \"sma\"\ntype = \"{kind}\"\n{line}\n");
        let _ = write!(text, "[[source]] {kind}: {line}\n{}\n\n", said(&[("meterferry.toml", &file)]));
    }
    text
}

/// Promise 5, never silent: ten errors of ten kinds are ten messages, in one go.
#[test]
fn ten_errors_in_one_go() {
    let text = r##"
[agent]
id = "raspberry.pi"

[queue]
max_size = "2 GB/s"
commit_delay = 5
max_sise = "1 GiB"

[kafka]
bootstrap_servers = ["kafka"]
delivery = "exactly_once"

[kafka.properties]
acks = "1"

[[source]]
name = "sma"
type = "mqtt"
port = 70000
topics = ["sma/#/x"]
password = "hunter2"
"##;
    let said = said(&[("meterferry.toml", text)]);
    assert_eq!(said.matches("error: ").count(), 10, "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    shows("ten_errors_in_one_go", &said);
}

/// Every key of `[agent]` has its limits, and says so.
#[test]
fn agent() {
    shows(
        "agent",
        &keys(
            "agent",
            &[
                r#"id = "home.1""#,
                r#"id = """#,
                "id = 7",
                r#"summary_interval = "100ms""#,
                "summary_interval = 3600",
                r#"summary_interval = "1 hour""#,
                r#"stop_timeout = "soon""#,
                "clock_wait = true",
                r#"name = "x""#,
            ],
        ),
    );
}

/// Promise 6: every limit of the queue has a name, and limits of its own.
#[test]
fn queue() {
    shows(
        "queue",
        &keys(
            "queue",
            &[
                r#"max_size = "2 GB/s""#,
                r#"max_size = "1 KiB""#,
                r#"max_size = "2g""#,
                r#"max_size = 2.5"#,
                r#"max_size = "32 MiB""#,
                "min_free = 0",
                r#"min_free = ["1 GiB"]"#,
                r#"when_full = "drop-newest""#,
                "when_full = 1",
                r#"segment_size = "1 GiB""#,
                r#"segment_size = "1 GB""#,
                "commit_delay = 2026-01-01",
                r#"commit_delay = "0s""#,
                r#"dead_letters_max_age = "1min""#,
                "dead_letters_max_age = 365",
                "redelivery_window = 3",
                r#"redelivery_window = "500""#,
                "redelivery_window = 20000\nsegment_size = \"4 MiB\"",
                "redelivery_window = 99999999999999999999",
                r#"max_reading_size = "8 MiB""#,
                r#"max_reading_size = "2 MiB""#,
                r#"path = """#,
                r#"path = "meterferry.toml/../../meterferry.toml""#,
                r#"maxsize = "2 GiB""#,
                r#"topic = "sma""#,
            ],
        ),
    );
}

/// Every key of `[kafka]` has its limits, and says so.
#[test]
fn kafka() {
    shows(
        "kafka",
        &keys(
            "kafka",
            &[
                r#"bootstrap_servers = "a:9092, b:9092""#,
                r#"bootstrap_servers = []"#,
                r#"bootstrap_servers = ["kafka", "::1", "a,b", "SASL_SSL://u:secret@k:9093", "k:0", "[::1]:9092"]"#,
                "bootstrap_servers = [\n  \"k:9092\",\n  9092,\n]",
                r#"topic = "sma kafka""#,
                r#"topic = "..""#,
                r#"topic = "__consumer_offsets""#,
                r#"resume_topic = "sma-kafka""#,
                r#"topic = "meterferry-resume""#,
                r#"delivery = "at_least_once""#,
                r#"format = "normalized""#,
                r#"compression = "brotli""#,
                "compression = false",
                r#"linger = "2min""#,
                "batch_count = 0",
                r#"batch_size = "1 GiB""#,
                r#"retry_max_delay = "0s""#,
                r#"request_timeout = "1h""#,
                r#"transaction_timeout = "1s""#,
                "idempotence = false",
                r#"idempotence = "false""#,
                "create_topics = 1",
                "partitions = 0",
                "replication = 0",
                r#"retention = "7""#,
                r#"timestamp_before_max = "-1d""#,
                "tls = true",
                r#"bootstrap-servers = ["k:9092"]"#,
            ],
        ),
    );
}

/// Whom the agent trusts, and as whom it speaks: nothing half configured passes.
#[test]
fn kafka_tables() {
    shows(
        "kafka_tables",
        &transcript(
            [
                "[kafka.tls]\nca_file = \"nowhere.pem\"\nverify = false",
                "[kafka.tls]\nca_file = \"meterferry.toml\"\ncertificate_file = \"/\"\nverify_hostname = \"no\"",
                "[kafka.tls]\nkey_file = \"\"",
                "[kafka.sasl]",
                "[kafka.sasl]\nmechanism = \"GSSAPI\"\nusername = \"u\"\npassword = \"hunter2\"",
                "[kafka.sasl]\nmechanism = \"OAUTHBEARER\"\nusername = \"\"\npassword_file = \"nowhere\"",
                "[kafka.sasl]\nmechanism = \"SCRAM-SHA-1\"\nuser = \"u\"\npassword_file = 7",
                "[kafka.sasl]\nmechanism = \"PLAIN\"\nusername = \"u\"\npassword_file = \"meterferry.toml\"",
            ],
            &format!("{SERVERS}{SOURCE}"),
        ),
    );
}

/// A mistake is said once, and nothing is concluded from it.
#[test]
fn a_wrong_format_is_no_original() {
    let said = said(&[(
        "meterferry.toml",
        &format!("[privacy]\nthin = \"15min\"\n[kafka]\nformat = \"normalised\"\n{SOURCE}"),
    )]);
    assert_eq!(said.matches("error").count(), 1, "{said}");
    assert!(said.contains("normalized"), "{said}");
}

/// Promise 3: what exactly-once rests on cannot be changed behind the agent's back.
#[test]
fn kafka_properties() {
    let file = format!(
        "[kafka.properties]\n{}\n{SERVERS}{SOURCE}",
        r#""bootstrap.servers" = "x:1"
transactional.id = "x"
"enable.idempotence" = false
"isolation.level" = "read_uncommitted"
"group.id" = "g"
acks = 1
"enable.auto.commit" = true
"message.timeout.ms" = 5
"transaction.timeout.ms" = 5
"security.protocol" = "ssl"
"sasl.password" = "hunter2"
"ssl.ca.location" = "x"
"compression.type" = "none"
"linger.ms" = 5
partitioner = "random"
"queue.buffering.max.kbytes" = 5
"socket.timeout.ms" = 5
"good.one" = [1]
"good.two" = 1.5
"bad name" = 1
empty = {}
"socket.keepalive.enable" = true
client.rack = "a"
"no.such.property" = 1
"socket.max.fails" = -3
ssl_ca = "x"
"plugin.library.paths" = "x"
"test.mock.num.brokers" = 3"#
    );
    let said = said(&[("meterferry.toml", &file)]);
    assert!(!said.contains("hunter2"), "{said}");
    shows("kafka_properties", &said);
}

/// Every key of a broker source has its limits, and says so.
#[test]
fn source_mqtt() {
    shows(
        "source_mqtt",
        &source_keys(
            "mqtt",
            &[
                r#"name = "again""#,
                r#"payload = "json""#,
                r#"kafka_topic = "a/b""#,
                r#"kafka_topic = "meterferry-resume""#,
                r#"host = "mqtt://user:hunter2@broker:1884""#,
                r#"host = "broker:1884""#,
                r#"host = "a b""#,
                "host = 5",
                "port = 0",
                r#"port = "1883""#,
                "topics = []",
                r#"topics = "sma""#,
                r#"topics = ["sma", "sma"]"#,
                r#"topics = ["sma/#", "+/power"]"#,
                r#"topics = ["a#", "b+", "", "$share/g/a", 5]"#,
                r#"client_id = """#,
                r#"username = "u""#,
                r#"password_file = "meterferry.toml""#,
                "username = \"\"\npassword_file = \"nowhere\"",
                r#"keep_alive = "1s""#,
                r#"keep_alive = "10.5s""#,
                r#"connect_timeout = "10m""#,
                r#"reconnect_max_delay = "2d""#,
                "max_unacknowledged = 5000\n[queue]\nredelivery_window = 1000",
                r#"max_packet_size = "10 KiB""#,
                r#"max_packet_size = "1 GiB""#,
                r#"retained = "yes""#,
                r#"listen = "127.0.0.1:1883""#,
                "[source.tls]\nverify_hostname = false",
                "[source.tls]\ncafile = \"x\"",
                "tls = \"ca.pem\"",
            ],
        ),
    );
}

/// Nobody can publish to an open port unless that was said; every key has its limits.
#[test]
fn source_mqtt_listener() {
    shows(
        "source_mqtt_listener",
        &source_keys(
            "mqtt-listener",
            &[
                r#"listen = "0.0.0.0:1883""#,
                "listen = \"192.168.1.5:1883\"\nallow_anonymous = false",
                r#"listen = "localhost:1883""#,
                r#"listen = ":1883""#,
                r#"listen = "127.0.0.1""#,
                r#"listen = "::1""#,
                "listen = 1883",
                "allow_anonymous = false",
                r#"users = [{ username = "a" }, {}, 5]"#,
                r#"users = { username = "a", password_file = "nowhere", role = "x" }"#,
                "max_clients = 0",
                "max_unacknowledged = 2000\n[queue]\nredelivery_window = 1000",
                r#"max_packet_size = "100 KiB""#,
                r#"idle_timeout = "1s""#,
                r#"commit_delay = "5s""#,
                r#"host = "broker""#,
                "[source.tls]",
                "[source.tls]\nca_file = \"x\"\ncertificate_file = \"meterferry.toml\"\nkey_file = \"meterferry.toml\"",
            ],
        ),
    );
}

/// Each key of a device that is asked has its limits, and a certificate that is half said is refused.
#[test]
fn source_rest() {
    let https = |line: &str| format!("url = \"https://meter.lan\"\n{line}");
    let tls = |line: &str| https(&format!("[source.tls]\n{line}"));
    let short = "AB:CD:".repeat(10);
    let fingerprint = format!("fingerprint = \"{}\"", "ab".repeat(32));
    let lines = [
        "interval = \"5s\"".to_owned(),
        r#"url = "192.168.1.50""#.to_owned(),
        r#"url = "ftp://meter""#.to_owned(),
        r#"url = "https://meter.lan/api/v1/measurement""#.to_owned(),
        r#"url = "https://key@meter.lan""#.to_owned(),
        r#"url = "https://meter.lan:99999""#.to_owned(),
        r#"url = "HTTP://[::1]:8080/""#.to_owned(),
        https("payload = \"any\""),
        https("path = \"measurement\""),
        https("path = \"/a b\""),
        https("token = \"abc\""),
        https("token_file = \"meterferry.toml\""),
        https("interval = \"500ms\""),
        https("status_interval = \"2d\""),
        https("timeout = 10"),
        https("max_body_size = \"1 GiB\""),
        https("retry_max_delay = \"0s\""),
        https("store_unchanged = \"true\""),
        https("topics = [\"sma\"]"),
        https("listen = \"127.0.0.1:1883\""),
        tls(&format!("fingerprint = \"{short}\"")),
        tls(&format!("fingerprint = \"{}\"", "ab".repeat(20))),
        tls(&format!("fingerprint = \"{}\"", "xy".repeat(32))),
        tls(&format!("{fingerprint}\ntrust_on_first_use = true")),
        tls("key_file = \"x\""),
        tls("ca_file = \"nowhere.pem\""),
        format!("url = \"http://meter.lan\"\n[source.tls]\n{fingerprint}"),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    shows("source_rest", &source_keys("rest", &lines));
}

/// Every key of a Modbus source has its limits, and says so.
#[test]
fn source_modbus() {
    let registers = |lines: &str| format!("[[source.registers]]\n{lines}");
    let cases = [
        "".to_owned(),
        "host = \"meter.lan:502\"".to_owned(),
        "port = 0".to_owned(),
        "unit = 256".to_owned(),
        "interval = \"500ms\"".to_owned(),
        "timeout = 3".to_owned(),
        "timeout = \"1h\"".to_owned(),
        "reconnect_max_delay = \"2d\"".to_owned(),
        "device = \"\"".to_owned(),
        "base = 65534".to_owned(),
        "payload = \"any\"".to_owned(),
        "topics = [\"sma\"]".to_owned(),
        "listen = \"127.0.0.1:502\"".to_owned(),
        "registers = 5".to_owned(),
        registers(""),
        registers(
            "address = 65536\ntype = \"u8\"\ncode = \"1.8\"\nfunction = \"coil\"\nword_order = \"little\"\nfactor = 0",
        ),
        registers("address = 65535\ntype = \"f32\"\ncode = \"energy\"\nfactor = \"0,1\"\nunit = \"Wh\""),
        registers(
            "address = 0\ntype = \"u32\"\ncode = \"1-0:1.8.0\"\nfactor = 0.1\n[[source.registers]]\naddress = 2\ntype = \"u32\"\ncode = \"1-0:1.8.0*255\"",
        ),
        "[[source]]\nname = \"again\"\ntype = \"modbus\"\nhost = \"127.0.0.1\"\n".to_owned(),
        format!("base = 40000\n{}", registers("address = 0\ntype = \"u32\"\ncode = \"1-0:1.8.0\"")),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    shows("source_modbus", &source_keys("modbus", &cases));
}

/// Promise 3: two sources that would store a message twice are refused.
#[test]
fn sources_together() {
    let listener = "[[source]]\ntype = \"mqtt-listener\"\n";
    shows(
        "sources_together",
        &transcript(
            [
                format!("{SOURCE}{SOURCE}host = \"other\"\n"),
                format!(
                    "{SOURCE}topics = [\"+\"]\n[[source]]\nname = \"two\"\ntype = \"mqtt\"\nhost = \"127.0.0.1\"\n"
                ),
                format!(
                    "{SOURCE}client_id = \"c\"\n[[source]]\nname = \"two\"\ntype = \"mqtt\"\ntopics = [\"b\"]\nclient_id = \"c\"\n"
                ),
                format!(
                    "{listener}name = \"a\"\n{listener}name = \"b\"\nlisten = \"0.0.0.0:1883\"\nallow_anonymous = true\n"
                ),
                format!("{SOURCE}{listener}name = \"own\"\n"),
                "[[source]]\n".to_owned(),
                "[[source]]\nname = \"a b\"\ntype = \"mqt\"\nlisten = \"127.0.0.1:0\"\nprot = 1\n".to_owned(),
                "[source]\nname = \"sma\"\ntype = \"mqtt\"\nport = 0\n".to_owned(),
                "[[sources]]\nname = \"sma\"\n".to_owned(),
            ],
            SERVERS,
        ),
    );
}

/// A file that is no TOML still has all its other problems reported.
#[test]
fn syntax() {
    shows(
        "syntax",
        &transcript(
            [
                "[queue]\nmax_size = 2 GiB\nmin_free = 5",
                "[queue]\nmax_size\nmin_free = 5\n[kafka]\ntopic = \"a b\"",
                "[queue\nmin_free = 5\n[kafka]]\ntopic = \"a b\"",
                "[queue]\nmin_free = 5\n[kafka]\n[queue]\nmax_size = 5",
                "[queue]\nmin_free = 5\nmin_free = 6",
                "[kafka]\nbootstrap_servers = [\"k:1\"\ntopic = \"a b\"\n[queue]\nmin_free = 5",
                "[kafka]\nbootstrap_servers = [\n  \"k:1\",\n  \"k\",\ntopic = \"a b\"\n\n[queue]\nmin_free = 5",
                "[kafka]\ntopic = \"abc\nlinger = 1s\nbatch_count =\n[queue]\nmin_free = 5",
                "[kafka.sasl]\npassword_file = hunter2",
                "[kafka]\ncreate_topics = yes",
                "[queue]\nmin_free = 5\nsource = 7\n[[source]]\nname = 1",
                "[[source]]\nname = 1\n[source]\nname = 2\n[[source]]\nname = 3",
                "[source]  # the first\nname = 1\n[[source]]\nname = 2",
                "queue = 5\nkafka = []\nsource = \"x\"\nmax_size = \"1 GiB\"\n\"a b\" = 1\n[quue]\n",
            ],
            "",
        ),
    );
}

/// Files that are none, and what `conf.d` does.
#[test]
fn files() {
    let mut text = String::new();
    let mut show = |what: &str, said: String| {
        let _ = write!(text, "{what}\n\n{said}\n\n");
    };
    show("no file at all", said(&[]));
    show("a folder", said(&[("meterferry.toml/x", "")]));
    show("nothing in it", said(&[("meterferry.toml", "")]));
    let main = format!("{SERVERS}{SOURCE}[queue]\nmax_sise = 1\n");
    show(
        "a broken file in conf.d, and the same source twice",
        said(&[
            ("meterferry.toml", &main),
            ("conf.d/10-broken.toml", "[queue]\nmin_free = 1 GiB\nmin_fre = 2\n"),
            ("conf.d/20-again.toml", &format!("{SOURCE}topics = [\"b\"]\n")),
            ("conf.d/30.toml.bak", "rubbish"),
            ("conf.d/.hidden.toml", "rubbish"),
        ]),
    );
    show(
        "what cannot be read in conf.d hides nothing",
        said(&[
            ("meterferry.toml", &main),
            ("conf.d/10.toml/x", ""),
            ("conf.d/20.toml", "[queue]\nmax_size = \"1 B\"\n"),
        ]),
    );
    let sasl = "[kafka.sasl]\nmechanism = \"SCRAM-SHA-256\"\nusername = \"u\"\npassword_file = \"secret\"\n";
    let file = format!("{SERVERS}{sasl}{SOURCE}");
    show("an empty secret", said(&[("meterferry.toml", &file), ("secret", "\n")]));
    show("a secret of two lines", said(&[("meterferry.toml", &file), ("secret", "a\nb\n")]));
    show("an encrypted key", {
        let key = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let file = format!("{SERVERS}[kafka.tls]\ncertificate_file = \"secret\"\nkey_file = \"secret\"\n{SOURCE}");
        said(&[("meterferry.toml", &file), ("secret", key)])
    });
    shows("files", &text);
}

/// Promise 5: what must not leave the house cannot be asked for in a way that does not hold.
#[test]
fn privacy() {
    let mut text = String::new();
    let mut show = |file: &str, secret: &str| {
        let rest = if file.contains("[[source]]") { String::new() } else { SOURCE.to_owned() };
        let whole = format!("{}{file}\n{rest}", SERVERS);
        let _ = write!(
            text,
            "{file}\n\n{}\n\n{}\n\n",
            said(&[("meterferry.toml", &whole), ("key", secret)]),
            "=".repeat(72)
        );
    };
    show("[privacy]\ncodes = [\"1.8.0\"]", "");
    show("format = \"normalized\"\n[privacy]\ncodes = [\"1.8.0\", \"power\", \"1-0:2.8.0*255\"]\nthin = \"5min\"", "");
    show("format = \"normalized\"\n[privacy]\ncodes = []\nthn = \"1min\"", "");
    show("format = \"normalized\"\n[privacy]\npseudonym_key_file = \"key\"", "short\n");
    show("format = \"normalized\"\n[privacy]\npseudonym_key = \"in the open\"", "");
    show("format = \"normalized\"\n[privacy]\nthin = \"15min\"\npseudonym_key_file = \"key\"", "0123456789abcdef\n");
    show("format = \"normalised\"", "");
    show("format = \"normalized\"\n[[source]]\nname = \"s\"\ntype = \"mqtt\"\npayload = \"any\"", "");
    shows("privacy", &text);
}

/// Every key of a mapping has its rule, and what is wrong in the table's file is said with that file's name and line.
#[test]
fn mapping() {
    let main =
        |lines: &str| format!("{SERVERS}[[source]]\nname = \"sma\"\ntype = \"mqtt\"\ntopics = [\"x\"]\n{lines}\n");
    let mut text = String::new();
    for lines in [
        "mapping_file = \"none.toml\"",
        "mapping_file = \"mine.toml\"\npayload = \"sma\"",
        "payload = \"tasmota\"",
        "payload = \"hichi\"",
        "timezone = \"Europe/Vienna\"",
        "payload = \"tasmota-sml\"\ntimezone = \"Wien\"",
        "payload = \"tasmota-sml\"\ntimezone = \"vienna\"",
        "payload = \"tasmota-sml\"\ntimezone = 2",
    ] {
        let mine = "shape = \"fields\"\n[[field]]\npath = \"p\"\ncode = \"1.7.0\"\n";
        let _ = write!(text, "{lines}\n{}\n\n", said(&[("meterferry.toml", &main(lines)), ("mine.toml", mine)]));
    }
    for mine in [
        "",
        "shape = \"field\"",
        "shape = \"fields\"",
        "shap = \"fields\"",
        "shape = \"fields\"\ntopics = [\"a/#/b\"]\nwindow = \"1h\"\nprefix = \"1\"\nregister_unit = \"kwh\"\nignore = [\"~2\", 7]",
        "shape = \"fields\"\n[device]\ntopics = [\"a/{meter}\"]\npath = \"x\"\n[time]\npaths = \"Time\"",
        "shape = \"fields\"\n[time]\npaths = \"Time\"\nformats = [\"unix\"]",
        "shape = \"fields\"\n[[field]]\n[[field]]\npath = \"p\"\n[[field]]\npath = \"p\"\ncode = \"power\"",
        "shape = \"fields\"\n[[field]]\npath = \"p\"\ncode = \"1-0:1.8.0\"\nunit = \"kW\"\nfactor = 0",
        "shape = \"fields\"\n[[field]]\npath = \"p\"\ncode = \"1-0:1.8.0\"\nname = \"x\"\nfactor = true\nscale = 2",
        "shape = \"topics\"\n[[field]]\ncode = \"1-0:1.8.0\"\n[[field]]\ntopic = \"a/{code}\"\ncode = \"1-0:1.8.0\"",
        "shape = \"obis-values\"\n[[constant]]\ncode = \"1.8.0\"\n[[constant]]\nvalue = 1",
    ] {
        let file = main("mapping_file = \"mine.toml\"");
        let _ = write!(text, "{mine}\n{}\n\n", said(&[("meterferry.toml", &file), ("mine.toml", mine)]));
    }
    shows("mapping", &text);
}
