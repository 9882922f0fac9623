"""Send one hostile corpus through the gateway to real servers; compare all reports."""
