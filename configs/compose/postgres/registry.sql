-- The schema registry's own database beside the pipeline's. Run once, when the volume is new.
CREATE DATABASE registry;
