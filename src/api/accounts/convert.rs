//! Accounts and checks as they are answered.

use super::limits;
use super::ownership::origin_to_proto;
use crate::api::fields;
use crate::api::proto::account::Auth as ProtoAuth;
use crate::api::proto::{
    Account as ProtoAccount, Check as ProtoCheck, CheckStep as ProtoCheckStep, NoAuth,
    Parking as ProtoParking, PasswordAuth, Reply as ProtoReply, Security as ProtoSecurity, Step as ProtoStep,
    check, check_step, parking,
};
use crate::domain::account::{Account, Check, CheckState, Login, Ownership, Profile, Security, account_name};
use crate::domain::outcome::Step;
use crate::domain::parking::{Parking, ParkingReason};
use crate::domain::reply::Reply;
use crate::smtp::check::{StepReport, StepState};

/// An account as it is answered.
pub(super) fn account(account: &Account) -> ProtoAccount {
    ProtoAccount {
        name: account_name(&account.site, account.id),
        check: Some(check(&account.check)),
        parking: account.parking.as_ref().map(parking),
        etag: fields::etag("account", account.version),
        create_time: Some(fields::to_timestamp(account.create_time)),
        update_time: Some(fields::to_timestamp(account.update_time)),
        ..profile(&account.profile)
    }
}

/// What a caller decided about an account, as it is answered; the rest is empty.
pub(super) fn profile(profile: &Profile) -> ProtoAccount {
    let Profile { active, sender_name, sender_email, server, login, ownership, limits } = profile;
    let Ownership { origin, user, shared, mailings_first } = ownership;
    let auth = match login {
        Login::None => ProtoAuth::None(NoAuth {}),
        Login::Password { username } => ProtoAuth::Password(PasswordAuth {
            username: username.clone(),
            password: String::new(),
            password_set: true,
        }),
    };
    ProtoAccount {
        active: Some(*active),
        sender_name: sender_name.clone(),
        sender_email: sender_email.to_string(),
        host: server.host.clone(),
        port: u32::from(server.port),
        security: security(server.security).into(),
        auth: Some(auth),
        mailings_first: Some(*mailings_first),
        origin: origin_to_proto(*origin).into(),
        user: user.clone(),
        shared: Some(*shared),
        limits: Some(limits::to_proto(limits)),
        ..ProtoAccount::default()
    }
}

/// The state of an account as it is answered.
pub(super) fn check(check: &Check) -> ProtoCheck {
    let Check { state, check_time, success_time, error, capabilities } = check;
    ProtoCheck {
        state: match state {
            CheckState::NotChecked => check::State::NotChecked,
            CheckState::Passed => check::State::Passed,
            CheckState::Failed => check::State::Failed,
        }
        .into(),
        check_time: check_time.map(fields::to_timestamp),
        success_time: success_time.map(fields::to_timestamp),
        error: error.clone(),
        capabilities: capabilities.clone(),
    }
}

/// Parking as it is answered.
pub(in crate::api) fn parking(parking: &Parking) -> ProtoParking {
    let Parking { reason, until, error } = parking;
    ProtoParking {
        reason: match reason {
            ParkingReason::AuthFailed => parking::Reason::AuthFailed,
            ParkingReason::Unreachable => parking::Reason::Unreachable,
            ParkingReason::Quota => parking::Reason::Quota,
            ParkingReason::Configuration => parking::Reason::Configuration,
        }
        .into(),
        until: Some(fields::to_timestamp(*until)),
        error: error.clone(),
    }
}

/// A step of a check as it is answered.
pub(super) fn check_step(report: StepReport) -> ProtoCheckStep {
    let StepReport { step, state, duration, reply, advice } = report;
    ProtoCheckStep {
        step: self::step(step).into(),
        state: match state {
            StepState::Passed => check_step::State::Passed,
            StepState::Failed => check_step::State::Failed,
            StepState::Warning => check_step::State::Warning,
            StepState::Skipped => check_step::State::Skipped,
        }
        .into(),
        duration: Some(fields::to_duration(duration)),
        reply: Some(self::reply(reply)),
        advice,
    }
}

/// A reply as it is answered.
pub(in crate::api) fn reply(reply: Reply) -> ProtoReply {
    let Reply { code, enhanced_code, text } = reply;
    ProtoReply { code: i32::from(code), enhanced_code, text }
}

/// A step as it is answered.
pub(in crate::api) const fn step(step: Step) -> ProtoStep {
    match step {
        Step::Resolve => ProtoStep::Resolve,
        Step::Connect => ProtoStep::Connect,
        Step::Tls => ProtoStep::Tls,
        Step::Hello => ProtoStep::Hello,
        Step::Auth => ProtoStep::Auth,
        Step::Envelope => ProtoStep::Envelope,
        Step::TestLetter => ProtoStep::TestLetter,
        Step::Content => ProtoStep::Content,
        Step::Acceptance => ProtoStep::Acceptance,
    }
}

pub(super) const fn security(security: Security) -> ProtoSecurity {
    match security {
        Security::ImplicitTls => ProtoSecurity::ImplicitTls,
        Security::StartTls => ProtoSecurity::Starttls,
        Security::None => ProtoSecurity::None,
    }
}
