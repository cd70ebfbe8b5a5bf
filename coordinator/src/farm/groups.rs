//! Groups of one's own instances. An admin's are the admin's: nobody groups for others.

use super::FarmError;
use crate::app::App;
use crate::identity::Identity;
use motefarm_core::Label;
use motefarm_proto::mote;

/// Most instances named in one call.
const MOST_INSTANCES: usize = 1000;

/// Parses what a user calls a group or a snapshot.
pub fn label(field: &str, text: &str) -> Result<Label, FarmError> {
    text.parse().map_err(|error| FarmError::Invalid(format!("field {field}: {error}")))
}

fn check_count(instances: &[String]) -> Result<(), FarmError> {
    let n = instances.len();
    match n > MOST_INSTANCES {
        true => Err(FarmError::Invalid(format!("field instances: {n} instances; at most {MOST_INSTANCES}"))),
        false => Ok(()),
    }
}

/// Makes a group.
pub async fn create(app: &App, caller: &Identity, group: &str, if_absent: bool) -> Result<(), FarmError> {
    let group = label("group", group)?;
    app.store.create_group(&caller.user, &group, if_absent, app.now()).await?;
    Ok(())
}

/// Ends a group; its instances live on.
pub async fn destroy(app: &App, caller: &Identity, group: &str) -> Result<(), FarmError> {
    Ok(app.store.destroy_group(&caller.user, &label("group", group)?, app.now()).await?)
}

/// The caller's groups.
pub async fn list(app: &App, caller: &Identity) -> Result<Vec<mote::GroupInfo>, FarmError> {
    let groups = app.store.groups(&caller.user).await?;
    Ok(groups.into_iter().map(|(group, instances)| mote::GroupInfo { group, instances }).collect())
}

/// Puts instances into a group, all or none.
pub async fn add(app: &App, caller: &Identity, group: &str, instances: &[String]) -> Result<(), FarmError> {
    check_count(instances)?;
    app.store.add_to_group(&caller.user, &label("group", group)?, instances, app.now()).await?;
    Ok(())
}

/// Takes instances out of a group; answers those that were not in it.
pub async fn remove(app: &App, caller: &Identity, group: &str, instances: &[String]) -> Result<Vec<String>, FarmError> {
    check_count(instances)?;
    Ok(app.store.remove_from_group(&caller.user, &label("group", group)?, instances, app.now()).await?)
}
