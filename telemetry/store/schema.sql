-- The tables of Ringfence, schema version 1.
--
-- Unknown values are NULL. Units are in the names: _e7 is 1e-7 degree, _mm millimetre, _ppm a share of a million.
-- A table with a mark such as /* by day: fix_time */ is cut by day: a hypertable where TimescaleDB is
-- present, native range partitions where it is not. telemetry/store/schema.py reads the mark.
-- Columns stand in order of width, because PostgreSQL pads each to its alignment.

CREATE TABLE shares (
    share            smallint PRIMARY KEY,
    epoch            bigint NOT NULL,            -- raised by every takeover; a commit with an older one fails
    last_batch       bigint NOT NULL,            -- tells whether a commit whose connection died has happened
    holder           text NOT NULL,              -- program that holds it: host:pid
    backend_pid      integer NOT NULL,           -- the database's process that serves it
    taken_time       timestamptz NOT NULL
) WITH (fillfactor = 20);                        -- one hot row: room for heap-only updates

CREATE TABLE snapshots (
    share            smallint NOT NULL REFERENCES shares,
    batch            bigint NOT NULL,            -- the state after this batch
    epoch            bigint NOT NULL,
    saved_time       timestamptz NOT NULL,
    state            bytea NOT NULL,
    PRIMARY KEY (share, batch)
);
ALTER TABLE snapshots ALTER COLUMN state SET STORAGE EXTERNAL;  -- it is compressed already where that helps

CREATE TABLE batches (
    committed_time   timestamptz NOT NULL,
    number           bigint NOT NULL,
    epoch            bigint NOT NULL,
    rules_version    bigint NOT NULL,
    tick_time        timestamptz,                -- the watermark the engine ticked to after the pings
    listening_since  timestamptz,                -- from when on nothing was missed up to tick_time
    first_fix_time   timestamptz,                -- of its pings: where a replay finds them
    last_fix_time    timestamptz,
    first_check_in   timestamptz,                -- received_time of its check-ins
    pings            integer NOT NULL,
    check_ins        integer NOT NULL,
    duplicates       integer NOT NULL,
    rejects          integer NOT NULL,
    share            smallint NOT NULL
) /* by day: committed_time */;
CREATE INDEX batches_number ON batches (share, number);

CREATE TABLE pings (
    fix_time         timestamptz NOT NULL,
    received_time    timestamptz NOT NULL,
    seq              bigint,
    batch            bigint NOT NULL,
    lat_e7           integer,
    lon_e7           integer,
    cell             integer,                    -- square of 0.01 degree, see telemetry/store/cells.py
    accuracy_mm      integer,
    speed_cmps       integer,
    heading_cdeg     integer,
    status           integer NOT NULL,
    marks            integer NOT NULL,
    boot             integer,
    altitude_m       smallint,
    battery_pct      smallint,
    satellites       smallint,
    share            smallint NOT NULL,
    judged           boolean NOT NULL,
    device_id        text COLLATE "C" NOT NULL
) /* by day: fix_time */;
CREATE INDEX pings_track ON pings (device_id, fix_time DESC);
CREATE INDEX pings_batch ON pings USING brin (batch, fix_time) WITH (pages_per_range = 16, autosummarize = on);
-- A third index, by cell and fix_time, is added to each day when the day is over (telemetry/store/house.py):
-- kept up row by row it would halve the rate of commits.

CREATE VIEW ping_details AS
SELECT device_id, fix_time, received_time, boot, seq,
       lat_e7 / 1e7::float8 AS lat, lon_e7 / 1e7::float8 AS lon,
       accuracy_mm / 1e3::float8 AS accuracy_m, speed_cmps / 1e2::float8 AS speed_mps,
       heading_cdeg / 1e2::float8 AS heading_deg, altitude_m, battery_pct, satellites,
       array_remove(ARRAY[
           CASE WHEN status &   1 <> 0 THEN 'strap_open' END, CASE WHEN status &   2 <> 0 THEN 'case_open' END,
           CASE WHEN status &   4 <> 0 THEN 'charging' END,   CASE WHEN status &   8 <> 0 THEN 'moving' END,
           CASE WHEN status &  16 <> 0 THEN 'beacon_in_range' END, CASE WHEN status & 32 <> 0 THEN 'jamming' END,
           CASE WHEN status &  64 <> 0 THEN 'button' END,     CASE WHEN status & 128 <> 0 THEN 'buffered' END
       ], NULL) AS status,
       (ARRAY['gnss', 'wifi', 'cell', 'beacon'])[((status >> 8) & 3) + 1] AS source,
       array_remove(ARRAY[
           CASE WHEN marks & 1 <> 0 THEN 'late' END,           CASE WHEN marks & 2 <> 0 THEN 'not_enrolled' END,
           CASE WHEN marks & 4 <> 0 THEN 'topic_mismatch' END, CASE WHEN marks & 8 <> 0 THEN 'tag_wrong' END,
           CASE WHEN marks & 16 <> 0 THEN 'impossible_movement' END, CASE WHEN marks & 32 <> 0 THEN 'clock_off' END
       ], NULL) AS marks,
       judged, share, batch
FROM pings;

CREATE SEQUENCE transition_ids AS bigint;
CREATE TABLE transitions (
    transition_id    bigint NOT NULL DEFAULT nextval('transition_ids'),
    time             timestamptz NOT NULL,       -- fix time of the first fix of the stretch that led to it
    confirmed_time   timestamptz NOT NULL,
    rules_version    bigint NOT NULL,
    batch            bigint NOT NULL,
    distance_mm      integer NOT NULL,           -- signed, negative inside, at the confirming fix
    confidence_ppm   integer NOT NULL,
    share            smallint NOT NULL,
    initial          boolean NOT NULL,
    late             boolean NOT NULL,
    withdrawn        boolean NOT NULL,           -- late pings refute the row before with this device, zone, kind, time
    kind             text COLLATE "C" NOT NULL,  -- ENTER, EXIT, CROSS
    device_id        text COLLATE "C" NOT NULL,
    zone_id          text COLLATE "C" NOT NULL
) /* by day: time */;
CREATE INDEX transitions_newest ON transitions (time DESC, transition_id DESC);
CREATE INDEX transitions_device ON transitions (device_id, time DESC, transition_id DESC);
CREATE INDEX transitions_zone ON transitions (zone_id, time DESC, transition_id DESC);

CREATE VIEW current_transitions AS
SELECT t.* FROM transitions t
WHERE NOT t.withdrawn AND NOT EXISTS (
    SELECT FROM transitions w
    WHERE w.withdrawn AND w.device_id = t.device_id AND w.zone_id = t.zone_id AND w.kind = t.kind
      AND w.time = t.time AND w.transition_id > t.transition_id);

-- Append-only: what late pings change is said by a row with a higher revision.
CREATE TABLE violations (
    violation_id     bigint NOT NULL,
    opened_time      timestamptz NOT NULL,
    confirmed_time   timestamptz NOT NULL,
    closed_time      timestamptz,                -- NULL: it lasts
    recorded_time    timestamptz NOT NULL,       -- when this row was committed
    supersedes       bigint,                     -- violation that late pings replaced by this one
    rules_version    bigint NOT NULL,
    batch            bigint NOT NULL,
    revision         integer NOT NULL,
    confidence_ppm   integer NOT NULL,           -- the highest so far
    depth_mm         integer NOT NULL,           -- the deepest point so far
    depth_error_mm   integer,
    fixes            integer NOT NULL,
    share            smallint NOT NULL,
    late             boolean NOT NULL,
    change           text COLLATE "C" NOT NULL,  -- opened, closed, amended, withdrawn, held_back
    severity         text COLLATE "C" NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    rule_id          text COLLATE "C" NOT NULL,
    zone_id          text COLLATE "C"            -- NULL: the rule is about the device
) /* by day: opened_time */;
CREATE INDEX violations_history ON violations (violation_id, revision);
CREATE INDEX violations_device ON violations (device_id, opened_time DESC);

-- Which revision of a violation is the current one, with what lists filter and sort by.
CREATE TABLE violation_heads (
    violation_id     bigint PRIMARY KEY,
    opened_time      timestamptz NOT NULL,
    revision         integer NOT NULL,
    state            text COLLATE "C" NOT NULL,  -- open, closed, withdrawn, held_back
    severity         text COLLATE "C" NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    rule_id          text COLLATE "C" NOT NULL,
    zone_id          text COLLATE "C"
);
CREATE INDEX violation_heads_newest ON violation_heads (opened_time DESC, violation_id DESC);
CREATE INDEX violation_heads_state ON violation_heads (state, opened_time DESC, violation_id DESC);
CREATE INDEX violation_heads_device ON violation_heads (device_id, opened_time DESC, violation_id DESC);

CREATE VIEW current_violations AS
SELECT v.*, h.state
FROM violation_heads h
JOIN violations v ON v.violation_id = h.violation_id AND v.revision = h.revision AND v.opened_time = h.opened_time;

CREATE TABLE alerts (
    alert_id         bigint PRIMARY KEY,
    violation_id     bigint NOT NULL,            -- the newest one that it is about
    opened_time      timestamptz NOT NULL,
    updated_time     timestamptz NOT NULL,
    acknowledged_time timestamptz,
    resolved_time    timestamptz,
    withdrawn_time   timestamptz,
    rules_version    bigint NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    rule_id          text COLLATE "C" NOT NULL,
    zone_id          text COLLATE "C",
    severity         text COLLATE "C" NOT NULL,
    state            text COLLATE "C" NOT NULL CHECK (state IN ('open', 'acknowledged', 'resolved', 'withdrawn')),
    outcome          text COLLATE "C" CHECK (outcome IN ('real', 'false', 'excused', 'equipment')),
    sentence         text NOT NULL,
    note             text,
    assigned_to      text,
    topic            text NOT NULL,              -- where its messages go
    suppression_id   bigint,                     -- it is kept quiet by this one; NULL: it is delivered
    told             boolean NOT NULL DEFAULT false -- some message about it went out
);
CREATE INDEX alerts_quiet ON alerts (suppression_id) WHERE suppression_id IS NOT NULL;
CREATE INDEX alerts_newest ON alerts (opened_time DESC, alert_id DESC);
CREATE INDEX alerts_state ON alerts (state, opened_time DESC, alert_id DESC);
CREATE INDEX alerts_device ON alerts (device_id, opened_time DESC, alert_id DESC);

CREATE SEQUENCE alert_log_ids AS bigint;
CREATE TABLE alert_log (
    log_id           bigint PRIMARY KEY DEFAULT nextval('alert_log_ids'),
    alert_id         bigint NOT NULL,
    violation_id     bigint NOT NULL,
    time             timestamptz NOT NULL,       -- of what caused the step
    recorded_time    timestamptz NOT NULL,
    change           text COLLATE "C" NOT NULL,  -- opened, updated, withdrawn, acknowledged, assigned, resolved, reopened,
                                                 -- escalated, suppressed, unsuppressed
    who              text,                       -- NULL: the engine
    outcome          text COLLATE "C",
    sentence         text,
    note             text,
    link             bigint NOT NULL UNIQUE,     -- the rest is the chain's: ringfence_link() below fills it in
    erased_by        bigint,                     -- erasure that blanked the personal part
    salt             bytea,                      -- of the personal part's hash; goes with what it hides
    personal_hash    bytea NOT NULL,
    hash             bytea NOT NULL
);
CREATE INDEX alert_log_alert ON alert_log (alert_id, log_id);

CREATE TABLE check_ins (
    time             timestamptz NOT NULL,
    received_time    timestamptz NOT NULL,
    batch            bigint NOT NULL,
    item             integer NOT NULL,           -- its place in the batch
    share            smallint NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    outcome          text COLLATE "C" NOT NULL,
    method           text COLLATE "C" NOT NULL
) /* by day: received_time */;
CREATE INDEX check_ins_device ON check_ins (device_id, time DESC);
CREATE INDEX check_ins_batch ON check_ins (share, batch);

CREATE SEQUENCE quarantine_ids AS bigint;
CREATE TABLE quarantine (
    quarantine_id    bigint NOT NULL DEFAULT nextval('quarantine_ids'),
    received_time    timestamptz NOT NULL,
    batch            bigint NOT NULL,
    payload_bytes    bigint NOT NULL,            -- length of what came
    share            smallint NOT NULL,
    topic            text NOT NULL,
    reason           text COLLATE "C" NOT NULL,
    detail           text NOT NULL,
    payload          bytea NOT NULL,             -- the beginning of it, up to a bound
    payload_sha256   bytea                       -- of the whole, where only the beginning was kept
) /* by day: received_time */;
CREATE INDEX quarantine_newest ON quarantine (received_time DESC, quarantine_id DESC);
CREATE INDEX quarantine_number ON quarantine (quarantine_id);

-- Who asked for a quarantined message to be taken in again, and when its share did.
CREATE TABLE quarantine_replays (
    replay_id        bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    quarantine_id    bigint NOT NULL,
    received_time    timestamptz NOT NULL,       -- of the message when it was quarantined
    asked_time       timestamptz NOT NULL,
    taken_time       timestamptz,                -- NULL: it waits; else the received time it was given now
    batch            bigint,                     -- the last that was committed for it
    share            smallint NOT NULL,
    who              text NOT NULL
);
CREATE UNIQUE INDEX quarantine_replays_waiting ON quarantine_replays (quarantine_id) WHERE taken_time IS NULL;
CREATE INDEX quarantine_replays_message ON quarantine_replays (quarantine_id, replay_id DESC);

-- What devices said they did with commands. A result that comes twice is stored once.
CREATE TABLE command_results (
    time             timestamptz NOT NULL,       -- the device's
    received_time    timestamptz NOT NULL,
    batch            bigint NOT NULL,
    share            smallint NOT NULL,
    done             boolean NOT NULL,           -- false: refused
    device_id        text COLLATE "C" NOT NULL,
    command_id       text COLLATE "C" NOT NULL,
    detail           text NOT NULL
) /* by day: received_time */;
CREATE INDEX command_results_command ON command_results (device_id, command_id);
CREATE INDEX command_results_device ON command_results (device_id, received_time DESC);

CREATE SEQUENCE outbox_ids AS bigint;
CREATE TABLE outbox (
    id               bigint NOT NULL DEFAULT nextval('outbox_ids'),  -- grows in the order of commits
    alert_id         bigint NOT NULL,
    created_time     timestamptz NOT NULL,
    sent_time        timestamptz,
    suppression_id   bigint,                     -- it is for the record alone; NULL: it is delivered
    retain           boolean NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    topic            text NOT NULL,
    clears           text,                       -- topic whose retained message ends with this one
    contact          jsonb,                      -- whom it is meant for by name; NULL: all who listen
    payload          bytea NOT NULL
) /* by day: created_time */;
CREATE INDEX outbox_order ON outbox (id);
CREATE INDEX outbox_waiting ON outbox (id) WHERE sent_time IS NULL;

-- How far each channel but MQTT has taken the outbox over into its own queue; MQTT's place is sent_time.
CREATE TABLE channels (
    channel          text COLLATE "C" PRIMARY KEY, -- webhook:NAME, email
    position         bigint NOT NULL,            -- the newest id of the outbox that it has looked at
    changed_time     timestamptz NOT NULL
) WITH (fillfactor = 20);                        -- hot rows: room for heap-only updates

-- One notification each: what a channel owes, or did.
CREATE TABLE deliveries (
    delivery_id      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    outbox_id        bigint NOT NULL,
    alert_id         bigint NOT NULL,
    created_time     timestamptz NOT NULL,       -- of the message
    due_time         timestamptz NOT NULL,       -- of the next try, while it waits
    settled_time     timestamptz,                -- when it was delivered or given up
    attempts         integer NOT NULL,
    state            text COLLATE "C" NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    channel          text COLLATE "C" NOT NULL,
    device_id        text COLLATE "C" NOT NULL,
    error            text,                       -- of the last try that failed
    contact          jsonb,
    payload          bytea NOT NULL,
    UNIQUE (channel, outbox_id)
);
CREATE INDEX deliveries_due ON deliveries (channel, due_time) WHERE state = 'waiting';
CREATE INDEX deliveries_first ON deliveries (channel, device_id, outbox_id) WHERE state = 'waiting';
CREATE INDEX deliveries_state ON deliveries (state, delivery_id DESC);
CREATE INDEX deliveries_settled ON deliveries (settled_time) WHERE settled_time IS NOT NULL;

-- An open alert's place in the escalation policy. A row is there while the alert is open and not quiet.
CREATE TABLE escalations (
    alert_id         bigint PRIMARY KEY REFERENCES alerts,
    since_time       timestamptz NOT NULL,       -- when it became open for operators
    due_time         timestamptz,                -- when to look at it; NULL: no step is left
    steps_done       smallint NOT NULL
);
CREATE INDEX escalations_due ON escalations (due_time) WHERE due_time IS NOT NULL;

-- Who keeps which alerts quiet until when, and why. They are recorded all the same.
CREATE TABLE suppressions (
    suppression_id   bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    created_time     timestamptz NOT NULL,
    until_time       timestamptz NOT NULL,
    lifted_time      timestamptz,                -- ended early
    released_time    timestamptz,                -- when what it had kept quiet was told; NULL: it has not ended
    device_id        text COLLATE "C",           -- of these three at least one; all that are given must fit
    rule_id          text COLLATE "C",
    zone_id          text COLLATE "C",
    reason           text NOT NULL,
    created_by       text NOT NULL,
    lifted_by        text,
    CHECK (num_nonnulls(device_id, rule_id, zone_id) > 0)
);
CREATE INDEX suppressions_ends ON suppressions (until_time) WHERE released_time IS NULL;

CREATE TABLE rules (
    version          bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    effective_time   timestamptz NOT NULL,
    saved_time       timestamptz NOT NULL DEFAULT clock_timestamp(),
    digest           text NOT NULL,
    saved_by         text,                       -- NULL: they came from files
    note             text,                       -- why
    document         json NOT NULL               -- json keeps the text as it was, so it loads again equal
);

-- What operators ask a device to do. The sender publishes them in order and notes when the broker had them.
CREATE SEQUENCE command_ids AS bigint;
CREATE TABLE commands (
    command_id       bigint PRIMARY KEY DEFAULT nextval('command_ids'),
    asked_time       timestamptz NOT NULL,
    sent_time        timestamptz,                -- NULL: the broker does not have it yet
    device_id        text COLLATE "C" NOT NULL,
    command          text COLLATE "C" NOT NULL,  -- locate, vibrate, message, set_interval
    who              text NOT NULL,
    payload          json NOT NULL               -- what the device gets
);
CREATE INDEX commands_device ON commands (device_id, command_id DESC);
CREATE INDEX commands_waiting ON commands (command_id) WHERE sent_time IS NULL;

-- What each version of the rules holds, for who asks the database. A row is in force for the versions
-- from_version <= version < until_version.
CREATE TABLE zones (
    from_version     bigint NOT NULL REFERENCES rules,
    until_version    bigint,
    zone_id          text COLLATE "C" NOT NULL,
    layer            text,
    digest           bytea NOT NULL,
    feature          json NOT NULL,
    PRIMARY KEY (zone_id, from_version)
);
CREATE INDEX zones_in_force ON zones (zone_id) WHERE until_version IS NULL;

CREATE TABLE enrollments (
    from_version     bigint NOT NULL REFERENCES rules,
    until_version    bigint,
    from_time        timestamptz,
    until_time       timestamptz,
    device_id        text COLLATE "C" NOT NULL,
    kind             text NOT NULL,
    participant      text,
    groups           text[] NOT NULL,
    layers           text[],
    digest           bytea NOT NULL,
    PRIMARY KEY (device_id, from_version)
);
CREATE INDEX enrollments_in_force ON enrollments (device_id) WHERE until_version IS NULL;

-- The newest of each device: what a map shows. Brought up to date by commits, at a bounded rate.
CREATE TABLE device_status (
    device_id        text COLLATE "C" PRIMARY KEY,
    fix_time         timestamptz,                -- of the newest ping
    received_time    timestamptz,
    position_time    timestamptz,                -- of the newest ping with a fix
    online_time      timestamptz,                -- when the next column became known
    online           boolean,
    lat_e7           integer,
    lon_e7           integer,
    accuracy_mm      integer,
    speed_cmps       integer,
    heading_cdeg     integer,
    status           integer,
    marks            integer,
    battery_pct      smallint
) WITH (fillfactor = 60);                        -- rows change often; room for heap-only updates

CREATE FUNCTION ringfence_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- an erasure that policy asks for says so for its own transaction (telemetry/store/erasure.py)
    IF TG_OP = 'DELETE' AND TG_TABLE_NAME IN ('violations', 'transitions')
       AND coalesce(current_setting('ringfence.erasure', true), '') <> '' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% is append-only: add a row with a higher revision instead', TG_TABLE_NAME;
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON violations EXECUTE FUNCTION ringfence_refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON transitions EXECUTE FUNCTION ringfence_refuse_change();

-- Who may use the API. Passwords and tokens are kept as argon2 hashes, the cookies of sessions as SHA-256.
CREATE TABLE accounts (
    name             text COLLATE "C" PRIMARY KEY,
    role             text COLLATE "C" NOT NULL CHECK (role IN ('read_only', 'operator', 'supervisor', 'engineer')),
    groups           text[],                     -- the caseload; NULL: everyone
    password_hash    text NOT NULL,
    created_time     timestamptz NOT NULL,
    password_time    timestamptz NOT NULL,       -- when the password was set
    disabled_time    timestamptz
);
CREATE TABLE tokens (
    token_id         text COLLATE "C" PRIMARY KEY,  -- the part of the token that is no secret
    name             text NOT NULL,              -- what it is for, and who acts with it
    role             text COLLATE "C" NOT NULL CHECK (role IN ('read_only', 'operator', 'supervisor', 'engineer')),
    groups           text[],
    secret_hash      text NOT NULL,
    created_time     timestamptz NOT NULL,
    expires_time     timestamptz,
    revoked_time     timestamptz
);
CREATE TABLE sessions (
    cookie_hash      bytea PRIMARY KEY,          -- SHA-256: the cookie has 256 random bits
    account          text COLLATE "C" NOT NULL REFERENCES accounts,
    began_time       timestamptz NOT NULL,
    expires_time     timestamptz NOT NULL
);
CREATE INDEX sessions_account ON sessions (account);

-- Who looked at whom and why, and what was done to accounts, tokens and personal data.
CREATE SEQUENCE erasure_ids AS bigint;
CREATE TABLE access_log (
    link             bigint PRIMARY KEY,
    time             timestamptz NOT NULL,
    who              text NOT NULL,
    role             text COLLATE "C" NOT NULL,
    how              text COLLATE "C" NOT NULL,  -- loopback, session, token, terminal
    what             text COLLATE "C" NOT NULL,  -- track, export, record, log_in, account, token, erase …
    erasure          bigint,                     -- of an erase: erased_by of the rows that it blanked
    device_id        text COLLATE "C",           -- from here on the personal part
    participant      text COLLATE "C",
    from_time        timestamptz,                -- of the range that was looked at
    to_time          timestamptz,
    reason           text,
    detail           text,
    erased_by        bigint,
    salt             bytea,
    personal_hash    bytea NOT NULL,
    hash             bytea NOT NULL
);
CREATE INDEX access_log_newest ON access_log (time DESC, link DESC);
CREATE INDEX access_log_participant ON access_log (participant, link) WHERE participant IS NOT NULL;
CREATE INDEX access_log_device ON access_log (device_id, link) WHERE device_id IS NOT NULL;
CREATE INDEX access_log_who ON access_log (who, link);

-- The chain (docs/adr: the audit chain). A row's hash covers the hash before it and the row's fields, of the
-- personal ones only a salted hash, so that erasing them leaves the chain whole.
-- telemetry/access/chain.py computes the same and compares.
CREATE FUNCTION ringfence_fields(fields jsonb) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT convert_to(coalesce(string_agg(
        octet_length(convert_to(key, 'UTF8')) || ':' || key || octet_length(convert_to(value, 'UTF8')) || ':' || value,
        '' ORDER BY key COLLATE "C"), ''), 'UTF8')
    FROM jsonb_each_text(jsonb_strip_nulls(fields))
$$;
CREATE FUNCTION ringfence_link() RETURNS trigger LANGUAGE plpgsql SET TimeZone = 'UTC' AS $$
DECLARE
    personal text[] := TG_ARGV;
    fields   jsonb := to_jsonb(NEW) - ARRAY['link', 'erased_by', 'salt', 'personal_hash', 'hash'];
    last     record;
BEGIN
    -- Held to the end of the transaction. Whoever writes takes rows of alerts first, then this, then the outbox's
    -- lock, and the access log's chain last: nobody waits in a circle.
    PERFORM pg_advisory_xact_lock(1380340801, hashtext(TG_TABLE_NAME));
    IF TG_TABLE_NAME = 'alert_log' THEN
        SELECT link, hash INTO last FROM alert_log ORDER BY link DESC LIMIT 1;
    ELSE
        SELECT link, hash INTO last FROM access_log ORDER BY link DESC LIMIT 1;
    END IF;
    NEW.link := coalesce(last.link, 0) + 1;
    NEW.erased_by := NULL;
    NEW.salt := uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());  -- 244 random bits
    NEW.personal_hash := sha256(NEW.salt || ringfence_fields(
        (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(fields) WHERE key = ANY (personal))));
    NEW.hash := sha256(coalesce(last.hash, decode(repeat('00', 32), 'hex')) || ringfence_fields(
        (fields - personal) || jsonb_build_object(
            'log', TG_TABLE_NAME, 'link', NEW.link, 'personal_hash', encode(NEW.personal_hash, 'hex'))));
    RETURN NEW;
END $$;
CREATE FUNCTION ringfence_only_erase() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    personal text[] := TG_ARGV;
    blanked  text[] := personal || ARRAY['salt', 'erased_by'];
BEGIN
    IF OLD.erased_by IS NULL AND NEW.erased_by IS NOT NULL AND NEW.salt IS NULL
       AND to_jsonb(NEW) - blanked = to_jsonb(OLD) - blanked
       AND NOT EXISTS (SELECT FROM jsonb_each(to_jsonb(NEW)) WHERE key = ANY (personal) AND value <> 'null') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only: a row''s personal part can be blanked by an erasure, nothing else',
        TG_TABLE_NAME;
END $$;
CREATE TRIGGER link BEFORE INSERT ON alert_log FOR EACH ROW EXECUTE FUNCTION ringfence_link('sentence', 'note');
CREATE TRIGGER only_erase BEFORE UPDATE ON alert_log
    FOR EACH ROW EXECUTE FUNCTION ringfence_only_erase('sentence', 'note');
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON alert_log EXECUTE FUNCTION ringfence_refuse_change();
CREATE TRIGGER link BEFORE INSERT ON access_log
    FOR EACH ROW EXECUTE FUNCTION ringfence_link('device_id', 'participant', 'from_time', 'to_time', 'reason', 'detail');
CREATE TRIGGER only_erase BEFORE UPDATE ON access_log
    FOR EACH ROW EXECUTE FUNCTION ringfence_only_erase('device_id', 'participant', 'from_time', 'to_time', 'reason', 'detail');
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON access_log EXECUTE FUNCTION ringfence_refuse_change();
