"""The broker's use-cases: functions over a `Broker`, one file for each journey."""
