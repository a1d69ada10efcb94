//! The kernel's rules for one network namespace: table `inet weir` of nftables.
//!
//! ```text
//! chain output {      type nat hook output priority -100;     connections out of the pod
//! chain prerouting {  type nat hook prerouting priority -100; connections into the pod
//! ```

use std::net::IpAddr;

use crate::netlink::{self, Message};
use crate::nftables::{Chain, Expression, Family, Hook, Meta, Table, table_exists};
use crate::redirection::Redirection;
use crate::text::{Cidr, PortRange};

const TABLE: Table = Table("weir");

/// Redirects connections of the network namespace that this thread is in. What an
/// earlier call did is replaced; other tables stay. All of it happens at once, or
/// nothing.
///
/// # Errors
/// The kernel refuses it: what, and what it needs.
pub fn apply(redirection: &Redirection) -> Result<(), String> {
    let mut batch: Vec<Message> = vec![
        // What is not there cannot be deleted.
        TABLE.create("create the table"),
        TABLE.delete("delete the table of before"),
        TABLE.create("create the table"),
    ];
    let chains = [
        (Chain { table: TABLE, name: "output", hook: Hook::Output }, outbound(redirection)),
        (Chain { table: TABLE, name: "prerouting", hook: Hook::Prerouting }, inbound(redirection)),
    ];
    for (chain, rules) in chains {
        batch.push(chain.create());
        batch.extend(rules.iter().map(|rule| chain.rule(rule)));
    }
    netlink::send_batch(&batch)
}

/// Whether connections of this network namespace are redirected.
///
/// # Errors
/// The kernel does not tell.
pub fn is_applied() -> Result<bool, String> {
    table_exists(TABLE)
}

type Rule = Vec<Expression>;

fn outbound(redirection: &Redirection) -> Vec<Rule> {
    let mut rules = common(redirection, Meta::OutputInterface);
    rules.push(vec![
        Expression::meta_is(Meta::SocketUser, &redirection.router_uid.to_ne_bytes()),
        Expression::Return,
    ]);
    rules.extend(redirection.skip_outbound_ports.iter().map(|range| to_port(*range)));
    rules.extend(redirection.skip_outbound_cidrs.iter().map(|cidr| to_address(*cidr)));
    rules.push(vec![Expression::Redirect { port: redirection.outbound_port }]);
    rules
}

fn inbound(redirection: &Redirection) -> Vec<Rule> {
    let mut rules = common(redirection, Meta::InputInterface);
    let own = [redirection.inbound_port, redirection.admin_port];
    let own = own.map(|port| PortRange { first: port, last: port });
    let skipped = own.iter().chain(&redirection.skip_inbound_ports);
    rules.extend(skipped.map(|range| to_port(*range)));
    rules.push(vec![Expression::Redirect { port: redirection.inbound_port }]);
    rules
}

/// What leaves a chain at once, whatever its direction.
fn common(redirection: &Redirection, interface: Meta) -> Vec<Rule> {
    const TCP: u8 = 6;
    let mut rules = vec![vec![Expression::meta_is_not(Meta::Protocol, &[TCP]), Expression::Return]];
    if redirection.skip_ipv6 {
        rules.push(vec![Expression::family_is(Family::IPV6), Expression::Return]);
    }
    rules.push(vec![Expression::meta_is(interface, &interface_name("lo")), Expression::Return]);
    rules
}

/// As the kernel keeps it: 16 bytes, zeros at the end.
fn interface_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    bytes
}

fn to_port(range: PortRange) -> Rule {
    vec![Expression::DestinationPort { first: range.first, last: range.last }, Expression::Return]
}

fn to_address(cidr: Cidr) -> Rule {
    let (family, bytes) = match cidr.address {
        IpAddr::V4(address) => (Family::IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (Family::IPV6, address.octets().to_vec()),
    };
    let address = Expression::Destination { address: bytes, length: cidr.length };
    vec![Expression::family_is(family), address, Expression::Return]
}
