"""From a manifest and the state of the world to what has to be done. Pure: the same two give the same plan.

`apply` plans twice: once to learn which builds are missing, and again with all builds there, when every change names
its release. A device that is enrolled but not in the manifest is left as it is, with a warning: a forgotten
line must not stop a device from serving. To take away what a device serves, its entry says `serve = false`.
"""

from edgewright_controller.plan.making import plan
from edgewright_controller.plan.releases import release_of
from edgewright_controller.plan.values import Build, Change, Kind, Plan, PlanError, Preparation
from edgewright_controller.plan.warnings import listed

__all__ = ["Build", "Change", "Kind", "Plan", "PlanError", "Preparation", "listed", "plan", "release_of"]
