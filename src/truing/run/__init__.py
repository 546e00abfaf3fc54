"""A plan is carried out, stage by stage: recorded, resumed, foreseen before anything is trained."""
