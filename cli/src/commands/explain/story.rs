//! An explanation as a person reads it.

use serde_json::Value;
use weir_router::explain::{BackendTold, Explanation, LimitTold, Upstream, Verdict, VersionTold};

/// Instances of a version that are shown; the rest is counted.
const INSTANCES: usize = 5;

/// Keys of a rule's document that have their own place in the story.
const TOLD: [&str; 4] = ["name", "matches", "filters", "backendRefs"];

struct Story {
    text: String,
    colours: bool,
}

/// The whole story, in the order in which things happen.
#[must_use]
pub fn tell(told: &Explanation, colours: bool) -> String {
    let mut story = Story { text: String::new(), colours };
    let from = match told.from.as_str() {
        "" => "from a service of the mesh".to_owned(),
        "gateway" => "from outside, at the gateway".to_owned(),
        service => format!("from {service}"),
    };
    let asked = format!("{} http://{}{}", told.method, told.host, told.path);
    story.line(0, &format!("{} {from}", story.bold(&asked)));
    if let Some(path) = told.canonical_path.as_ref().filter(|path| **path != told.path) {
        story.line(1, &format!("whose path is {path} in the form that routes and policies see"));
    }
    story.candidates(told);
    story.rule(told);
    story.effects(told);
    story.limits(&told.does.limits);
    story.backends(told);
    story.policies(told);
    story.upstream(told);
    if told.outside {
        story.heading("it is for no service: egress decides whether it leaves the mesh");
    }
    if let Some(redirect) = &told.redirect {
        story.heading("the router sends the client elsewhere");
        story.line(1, &format!("{} Location: {}", redirect.status, redirect.location));
    }
    if let Some(answer) = &told.answer {
        story.heading("the router answers itself");
        let error = story.red(&answer.error);
        let flag = match answer.flag {
            "" => String::new(),
            flag => format!(", flag {flag}"),
        };
        let line = format!("{} (gRPC {}{flag}): {error}", answer.status, answer.grpc_status);
        story.line(1, &line);
    }
    story.text
}

impl Story {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.push_str(&"  ".repeat(depth));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.text.push('\n');
        let text = self.bold(text);
        self.line(0, &text);
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colours {
            true => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn candidates(&mut self, told: &Explanation) {
        let Some(parent) = &told.parent else { return };
        if told.tried.is_empty() && told.not_told == 0 {
            self.heading(&format!("{parent} has no routes"));
            return;
        }
        self.heading(&format!("routes of {parent}, in order of precedence"));
        if told.not_told > 0 {
            let text = format!("({} matches of other hosts and paths are left out)", told.not_told);
            let text = self.paint("2", &text);
            self.line(1, &text);
        }
        for tried in &told.tried {
            let host = tried.hostname.as_deref().map(|host| format!(" {host}")).unwrap_or_default();
            let (mark, why) = match (tried.differs, &tried.why) {
                // What is wanted has just been said.
                (Some(part @ ("host" | "path")), _) => (self.red("no "), format!("another {part}")),
                (_, Some(why)) => (self.red("no "), why.clone()),
                _ => (self.paint("32", "yes"), String::new()),
            };
            let why = if why.is_empty() { why } else { self.paint("2", &format!(" ({why})")) };
            let place = format!("{} rule {} match {}", tried.route, tried.rule, tried.index);
            self.line(1, &format!("{mark} {place}:{host} {}{why}", tried.wants));
        }
    }

    fn rule(&mut self, told: &Explanation) {
        let Some(matched) = &told.matched else {
            if told.preflight {
                self.heading("a CORS preflight, which the mesh's options answer");
            } else if told.answer.is_none() && !told.outside {
                self.heading("the service takes it itself, by its own split");
                self.line(1, &format!("label {}", told.label));
            }
            return;
        };
        let name = if matched.rule_name.is_empty() {
            String::new()
        } else {
            format!(" ({})", matched.rule_name)
        };
        let (kind, route, rule) = (matched.kind, &matched.route, matched.rule);
        self.heading(&format!("{kind} {route}, rule {rule}{name} takes it"));
        self.line(1, &format!("label {}", told.label));
        let filters = told.rule["filters"].as_array().cloned().unwrap_or_default();
        for (i, filter) in filters.iter().enumerate() {
            self.line(1, &format!("filter {}: {}", i + 1, self::filter(filter)));
        }
        let rest = told.rule.as_object().into_iter().flatten();
        for (key, value) in rest.filter(|(key, _)| !TOLD.contains(&key.as_str())) {
            self.line(1, &format!("{key}: {value}"));
        }
    }

    /// What happens beside forwarding.
    fn effects(&mut self, told: &Explanation) {
        let does = &told.does;
        if told.preflight {
            self.line(1, "a CORS preflight: the router answers it");
        }
        if let Some(timeout) = does.timeout_ms {
            self.line(1, &format!("answered within {timeout} ms, or not at all"));
        }
        if let Some(timeout) = does.backend_timeout_ms {
            self.line(1, &format!("each try has {timeout} ms"));
        }
        for extension in &does.extensions {
            self.line(
                1,
                &format!("HTTPRouteFilter {}: {}", extension.name, extension.does.join("; ")),
            );
        }
        for mirror in &does.mirrors {
            let version = mirror.version.as_deref().map(|v| format!("-{v}")).unwrap_or_default();
            let share = percent(mirror.percent);
            self.line(1, &format!("copies of {share} go to {}{version}", mirror.service));
        }
        if let Some(cors) = &does.cors {
            let origins = cors.origins.join(", ");
            let this = match cors.allowed {
                Some(true) => "the request's may",
                Some(false) => "the request's may not",
                None => "the request names none",
            };
            let line = format!("CORS by the {}: pages of {origins} may read; {this}", cors.by);
            self.line(1, &line);
        }
        if let Some(session) = &does.session {
            let known = if session.known { "which the request has" } else { "none yet" };
            self.line(1, &format!("session by {}, {known}", session.by));
        }
        if let Some(force) = &does.force_version {
            let asked = force.asked.as_deref().unwrap_or("nothing");
            self.line(1, &format!("{} may name a version; it names {asked}", force.by));
        }
        if does.pins_version {
            self.line(1, "the version is carried along as baggage: the chain of calls keeps it");
        }
        if let Some(gets) = &told.gets {
            let by = match gets.by {
                "forced" => "the request names it",
                "pinned" => "its chain of calls has it",
                "audience" => "it is of the version's audience",
                "session" => "its session has it",
                "sticky" => "its user sticks to it",
                "named" => "the route names it",
                _ => "there is no other",
            };
            self.line(1, &format!("this one gets {}-{}: {by}", gets.service, gets.version));
        }
    }

    fn limits(&mut self, limits: &[LimitTold]) {
        if limits.is_empty() {
            return;
        }
        self.heading("limits");
        for limit in limits {
            let key = match limit.key.as_slice() {
                [] => "of all together".to_owned(),
                key => format!("for each {}", key.join(", ")),
            };
            let not = if limit.counts { "" } else { ", which does not count this request" };
            let audit = if limit.mode == "Audit" { ", only reported" } else { "" };
            let (policy, rule) = (&limit.policy, &limit.rule);
            let scope = limit.scope.to_lowercase();
            self.line(
                1,
                &format!(
                    "{policy}/{rule} at {}: {} {key} ({scope}){audit}{not}",
                    limit.at, limit.limit
                ),
            );
        }
    }

    fn backends(&mut self, told: &Explanation) {
        if told.backends.is_empty() {
            return;
        }
        self.heading("backends");
        for backend in &told.backends {
            self.backend(backend);
        }
    }

    fn backend(&mut self, backend: &BackendTold) {
        let named = backend.version.as_deref().map(|v| format!("-{v}")).unwrap_or_default();
        self.line(
            1,
            &format!(
                "{}{named}: {} of requests (weight {})",
                backend.service,
                percent(backend.share_percent),
                backend.weight
            ),
        );
        if let Some(why) = &backend.invalid {
            let text = self.red(&format!("cannot be used, its share is answered 500: {why}"));
            self.line(2, &text);
        }
        if let Some(sticky) = &backend.sticky {
            let text = match (&backend.gets, sticky.known) {
                (Some(version), true) => {
                    format!("sticky by {}: this one gets {version}", sticky.by)
                }
                _ => format!("sticky by {}, which the request does not have", sticky.by),
            };
            self.line(2, &text);
        }
        for audience in &backend.audiences {
            let this = match audience.takes {
                Some(true) => "this one is of it",
                Some(false) => "this one is not",
                None => "whether this one is, its token's claims say",
            };
            let (who, version) = (&audience.who, &audience.version);
            self.line(2, &format!("audience: {who} gets {version}; {this}"));
        }
        if let Some(mirror) = &backend.mirror {
            let share = percent(mirror.percent);
            self.line(2, &format!("copies of {share} go to {} as well", mirror.version));
        }
        for version in &backend.versions {
            self.version(version);
        }
    }

    fn version(&mut self, version: &VersionTold) {
        let healthy = version.instances.iter().filter(|instance| instance.healthy).count();
        self.line(
            2,
            &format!(
                "{}: {}, {healthy} of {} instances healthy",
                version.version,
                percent(version.share_percent),
                version.instances.len()
            ),
        );
        if version.panic {
            let text = self.red("so few are healthy that all of them get requests (panic)");
            self.line(3, &text);
        }
        for instance in version.instances.iter().take(INSTANCES) {
            let zone = match instance.zone.as_str() {
                "" => String::new(),
                zone => format!(" in {zone}"),
            };
            let health =
                if instance.healthy { "healthy".to_owned() } else { self.red("unhealthy") };
            self.line(
                3,
                &format!(
                    "{} at {} by {}{zone}: {health}",
                    instance.id, instance.address, instance.by
                ),
            );
        }
        if version.instances.len() > INSTANCES {
            self.line(3, &format!("and {} more", version.instances.len() - INSTANCES));
        }
    }

    fn policies(&mut self, told: &Explanation) {
        if !told.policies.is_empty() {
            self.heading("policies");
            for policy in &told.policies {
                self.line(1, &format!("{} {} on {}", policy.kind, policy.name, policy.target));
                // The others are told by what they do to this request.
                if policy.kind == "BackendTrafficPolicy" {
                    for (key, value) in policy.spec.as_object().into_iter().flatten() {
                        self.line(2, &format!("{key}: {value}"));
                    }
                }
            }
        }
        if !told.verdicts.is_empty() {
            self.heading("who may");
            told.verdicts.iter().for_each(|verdict| self.verdict(verdict));
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let word = match (verdict.allowed, verdict.depends_on_claims.is_empty()) {
            (_, false) => self.paint("33", "depends"),
            (true, true) => self.paint("32", "allowed"),
            (false, true) => self.red("denied"),
        };
        let identity = match verdict.identity.as_str() {
            "" => "without an identity",
            identity => identity,
        };
        self.line(1, &format!("at {}: {word}, {identity}: {}", verdict.at, verdict.why));
        if !verdict.depends_on_claims.is_empty() {
            let names = verdict.depends_on_claims.join(", ");
            self.line(2, &format!("that is without claims; these decide: {names} (try --claims)"));
        }
        if let Some(finding) = &verdict.audited {
            self.line(2, &format!("policies that only report would deny it: {finding}"));
        }
        if let Some(tokens) = &verdict.tokens {
            let must = if tokens.required { "there must be one" } else { "there may be none" };
            let issuers = tokens.issuers.join(", ");
            self.line(
                2,
                &format!("AuthenticationPolicy {}: tokens of {issuers}; {must}", tokens.policy),
            );
        }
        for policy in &verdict.external {
            self.line(2, &format!("AuthorizationPolicy {policy} asks another service as well"));
        }
    }

    fn upstream(&mut self, told: &Explanation) {
        let Some(Upstream { backend, method, authority, path, headers, added, removed, notes }) =
            &told.upstream
        else {
            return;
        };
        self.heading(&format!("sent on to {backend} as"));
        self.line(1, &format!("{method} {path} to {authority}"));
        for (name, value) in headers {
            let text = format!("{name}: {value}");
            let text = match added.contains(name) {
                true => self.paint("32", &format!("+ {text}")),
                false => format!("  {text}"),
            };
            self.line(1, &text);
        }
        for name in removed {
            let text = self.red(&format!("- {name}"));
            self.line(1, &text);
        }
        for note in notes {
            self.line(1, note);
        }
    }
}

/// `RequestHeaderModifier {"set":[...]}`: its type, and what it is set to.
fn filter(filter: &Value) -> String {
    let name = filter["type"].as_str().unwrap_or("?");
    let rest = filter.as_object().into_iter().flatten().find(|(key, _)| *key != "type");
    match rest {
        Some((_, value)) => format!("{name} {value}"),
        None => name.to_owned(),
    }
}

/// `90%`, `33.33%`.
fn percent(value: f64) -> String {
    let text = format!("{value:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}
