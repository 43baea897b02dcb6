"""What every stage stands on: command line, errors, files, parameters, devices."""
