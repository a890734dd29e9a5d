DROP TABLE bookings;
DROP TABLE shows;
